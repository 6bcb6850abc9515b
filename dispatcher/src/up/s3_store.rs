//! What the built-in S3 endpoint does beyond its storage library, and what it refuses.
//!
//! `s3s-fs` answers before anything is on disk, and checks conditions of a write before it writes,
//! so that two writers can both win. Here an object is synced before the answer, and conditional
//! writes are refused: a condition that sometimes does not hold is worse than none. It walks the
//! whole bucket for a list; here a list costs what its folder holds. Only the operations that the
//! dispatcher and its presigned URLs use exist at all.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::access::{S3Access, S3AccessContext};
use s3s::dto::*;
use s3s::path::S3Path;
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;

use super::{s3_list, s3_small};

/// Objects in the directories below `root`, one per bucket.
pub(super) struct Store {
    root: PathBuf,
    files: FileSystem,
}

/// One bucket, signed requests only, and no key that climbs out of it.
pub(super) struct OneBucket(pub(super) String);

impl Store {
    /// Opens the storage, removing what unfinished uploads left.
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        let files = FileSystem::new(root)
            .map_err(|error| anyhow::anyhow!("open object storage: {error:?}"))?;
        Ok(Self {
            root: root.to_owned(),
            files,
        })
    }

    /// What the library keeps of an object beside it.
    fn side_files(&self, bucket: &str, key: &str) -> [PathBuf; 2] {
        let (bucket, key) = (URL_SAFE_NO_PAD.encode(bucket), URL_SAFE_NO_PAD.encode(key));
        ["metadata", "internal"].map(|kind| {
            let name = format!(".bucket-{bucket}.object-{key}.{kind}.json");
            self.root.join(name)
        })
    }

    /// Removes the directories that a deleted object leaves empty. A writer that has just made
    /// one of them and not yet moved its object there fails, and tries again.
    async fn prune(&self, bucket: &str, key: &str) {
        let bucket = self.root.join(bucket);
        let object = bucket.join(key);
        let folders = object.ancestors().skip(1);
        for folder in folders.take_while(|folder| *folder != bucket) {
            // Not empty, or gone already: nothing is to be done above it either.
            if tokio::fs::remove_dir(folder).await.is_err() {
                return;
            }
        }
    }

    /// Writes a whole small object.
    async fn put_small(&self, input: PutObjectInput) -> S3Result<S3Response<PutObjectOutput>> {
        let body = input.body.ok_or_else(|| s3_error!(IncompleteBody))?;
        let bytes = s3_small::gather(body).await;
        let bytes = bytes.map_err(|_| s3_error!(IncompleteBody, "the body broke off"))?;
        let declared = input
            .content_length
            .and_then(|bytes| usize::try_from(bytes).ok());
        if declared != Some(bytes.len()) {
            return Err(s3_error!(
                IncompleteBody,
                "the body is shorter than it said"
            ));
        }
        let root = self.root.clone();
        let object = root.join(&input.bucket).join(&input.key);
        let sides = self.side_files(&input.bucket, &input.key);
        let write = move || s3_small::write(&root, &object, &sides, &bytes);
        on_disk(tokio::task::spawn_blocking(write).await)?;
        Ok(S3Response::new(PutObjectOutput::default()))
    }

    /// Puts an object, its side files and their directories on disk.
    async fn sync(&self, bucket: &str, key: &str) -> S3Result<()> {
        let root = self.root.clone();
        let object = root.join(bucket).join(key);
        let sides = self.side_files(bucket, key);
        let sync = move || -> std::io::Result<()> {
            std::fs::File::open(&object)?.sync_all()?;
            for side in sides {
                if side.exists() {
                    std::fs::File::open(side)?.sync_all()?;
                }
            }
            for dir in object
                .ancestors()
                .skip(1)
                .take_while(|dir| dir.starts_with(&root))
            {
                std::fs::File::open(dir)?.sync_all()?;
            }
            Ok(())
        };
        on_disk(tokio::task::spawn_blocking(sync).await)
    }
}

/// What became of work on the disk.
fn on_disk(done: Result<std::io::Result<()>, tokio::task::JoinError>) -> S3Result<()> {
    done.map_err(std::io::Error::other)
        .flatten()
        .map_err(|error| {
            tracing::error!("write object: {error}");
            s3_error!(InternalError, "the object could not be written to disk")
        })
}

/// Logs what went wrong here. What a client did wrong is its own affair: see
/// [`clawlink_shared::telemetry::DEFAULT_FILTER`].
fn told<T>(done: S3Result<T>) -> S3Result<T> {
    done.inspect_err(|error| {
        if *error.code() == S3ErrorCode::InternalError {
            tracing::error!("object storage: {error:?}");
        }
    })
}

/// Operations that go to the storage as they are.
macro_rules! pass {
    ($($name:ident: $input:ident => $output:ident),* $(,)?) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            $(
                async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    told(self.files.$name(request).await)
                }
            )*

            async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
                if request.input.if_match.is_some() || request.input.if_none_match.is_some() {
                    return Err(s3_error!(NotImplemented, "conditional writes are not supported"));
                }
                if s3_small::is_small(&request.input) {
                    return self.put_small(request.input).await;
                }
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                let response = told(self.files.put_object(request).await)?;
                self.sync(&bucket, &key).await?;
                Ok(response)
            }

            async fn delete_object(
                &self,
                request: S3Request<DeleteObjectInput>,
            ) -> S3Result<S3Response<DeleteObjectOutput>> {
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                let sides = self.side_files(&bucket, &key);
                let response = told(self.files.delete_object(request).await)?;
                self.prune(&bucket, &key).await;
                for side in sides {
                    match tokio::fs::remove_file(side).await {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            tracing::warn!("delete what was beside an object: {error}");
                        }
                        _ => {}
                    }
                }
                Ok(response)
            }

            async fn list_objects_v2(
                &self,
                request: S3Request<ListObjectsV2Input>,
            ) -> S3Result<S3Response<ListObjectsV2Output>> {
                s3_list::list(&self.root, request.input).await.map(S3Response::new)
            }

            async fn list_multipart_uploads(
                &self,
                request: S3Request<ListMultipartUploadsInput>,
            ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
                s3_list::uploads(&self.root, request.input).await.map(S3Response::new)
            }

            async fn abort_multipart_upload(
                &self,
                request: S3Request<AbortMultipartUploadInput>,
            ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
                let aborted = self.files.abort_multipart_upload(request).await;
                // Its answer about an upload that is not there (any more).
                aborted.map_err(|error| match error.code() {
                    S3ErrorCode::AccessDenied => s3_error!(NoSuchUpload),
                    _ => error,
                })
            }

            async fn complete_multipart_upload(
                &self,
                request: S3Request<CompleteMultipartUploadInput>,
            ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
                if request.input.if_match.is_some() || request.input.if_none_match.is_some() {
                    return Err(s3_error!(NotImplemented, "conditional writes are not supported"));
                }
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                let response = told(self.files.complete_multipart_upload(request).await)?;
                self.sync(&bucket, &key).await?;
                Ok(response)
            }
        }
    };
}

pass! {
    head_bucket: HeadBucketInput => HeadBucketOutput,
    get_object: GetObjectInput => GetObjectOutput,
    head_object: HeadObjectInput => HeadObjectOutput,
    copy_object: CopyObjectInput => CopyObjectOutput,
    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput,
    upload_part: UploadPartInput => UploadPartOutput,
    list_parts: ListPartsInput => ListPartsOutput,
}

#[async_trait::async_trait]
impl S3Access for OneBucket {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "a signature is required"));
        }
        let allowed = match cx.s3_path() {
            S3Path::Root => false,
            S3Path::Bucket { bucket } => **bucket == *self.0,
            S3Path::Object { bucket, key } => {
                let climbs = key
                    .split('/')
                    .any(|part| part.is_empty() || part == "." || part == "..");
                **bucket == *self.0 && !climbs
            }
        };
        if allowed {
            Ok(())
        } else {
            Err(s3_error!(
                AccessDenied,
                "not in the bucket of this installation"
            ))
        }
    }
}
