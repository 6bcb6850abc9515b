//! What archiving asks of the dispatcher, answered through the lease's calls.

use clawlink_shared::control::{
    ArchiveFinish, ArchiveGrant, ArchiveRequest, ArchiveSource, Failure, PartUrls, PartsRequest,
};
use clawlink_shared::execution::ErrorCode;

use super::{CallError, Held};
use crate::persist::ArchiveApi;

impl ArchiveApi for Held {
    async fn grant(&self, request: ArchiveRequest) -> Result<ArchiveGrant, Failure> {
        self.archive(&request).await.map_err(failure)
    }

    async fn parts(&self, request: PartsRequest) -> Result<PartUrls, Failure> {
        self.archive_parts(&request).await.map_err(failure)
    }

    async fn finish(&self, request: ArchiveFinish) -> Result<(), Failure> {
        self.archive_finish(&request).await.map_err(failure)
    }

    async fn source(&self) -> Result<ArchiveSource, Failure> {
        self.archive_source().await.map_err(failure)
    }
}

fn failure(error: CallError) -> Failure {
    let code = match error {
        CallError::LeaseLost | CallError::Unreachable => ErrorCode::WorkerLost,
        _ => ErrorCode::StorageError,
    };
    Failure::new(code, format!("ask about the archive: {error}"))
}
