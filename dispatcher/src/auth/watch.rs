//! Streams end when their reader may read no longer: a stream lives for hours, and admitting
//! alone would let it outlive a removed member, a revoked key, or a policy that hides its
//! session. Its client sees a stream that was cut; who resumes it is refused like anybody else.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::Response;
use clawlink_shared::id::SessionId;
use futures::StreamExt;
use rand::RngExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::principal::{Principal, Who};
use super::rights;
use crate::app::App;
use crate::bus::RightsOf;
use crate::workspaces::role::{Permission, Role};
use crate::{devices, policies};

/// How long a change of rights may go unseen that no hint told of.
const RECHECK: Duration = Duration::from_secs(300);

/// Streams that one change concerns ask within this time, not at one moment.
const SPREAD: Duration = Duration::from_secs(1);

/// Who reads, and by what right.
pub(super) struct Reader {
    pub(super) principal: Principal,
    pub(super) permission: Permission,
}

/// Marks a stream, among its response's extensions, as one of this session, which policies may
/// hide.
#[derive(Debug, Clone, Copy)]
pub struct OfSession(pub SessionId);

/// The same answer; if it is a stream, it is cut once the reader has lost the right to it.
pub(super) fn watch(app: &App, reader: Reader, response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.map(|kind| kind.as_bytes());
    if !matches!(kind, Some(b"text/event-stream" | b"application/x-ndjson")) {
        return response;
    }
    let (head, body) = response.into_parts();
    let session = head.extensions.get().map(|OfSession(session)| *session);
    let mut chunks = body.into_data_stream();
    let mut lost = Box::pin(lost(app.clone(), reader, session));
    let chunks = async_stream::stream! {
        loop {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                () = &mut lost => Some(Err(axum::Error::new(io::Error::other("the right to read was lost")))),
            };
            let Some(chunk) = chunk else { return };
            let is_cut = chunk.is_err();
            yield chunk;
            if is_cut {
                return;
            }
        }
    };
    Response::from_parts(head, Body::from_stream(chunks))
}

/// Returns when the reader may not read any more.
async fn lost(app: App, reader: Reader, session: Option<SessionId>) {
    let mut hints = app.rights.follow();
    let mut recheck = tokio::time::interval_at(Instant::now() + RECHECK, RECHECK);
    loop {
        // What cannot be asked now is asked the next time.
        if matches!(Box::pin(reader.may_read(&app, session)).await, Ok(false)) {
            return;
        }
        loop {
            tokio::select! {
                hint = hints.recv() => match hint {
                    Ok(of) if !reader.is_meant(of) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        // The first of many who read by the same right asks for all of them.
                        let wait = SPREAD.mul_f64(rand::rng().random());
                        tokio::time::sleep(wait).await;
                        break;
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = recheck.tick() => break,
            }
        }
    }
}

impl Reader {
    /// Whether a change may be one of this reader's rights. One of everyone's only says that
    /// hints may have been lost: all streams must not ask at that moment.
    fn is_meant(&self, of: RightsOf) -> bool {
        match of {
            RightsOf::User(user) => self.principal.who == Who::User(user),
            RightsOf::Key(key) => self.principal.who == Who::Key(key),
            RightsOf::Workspace(workspace) => self.principal.workspace == workspace,
            RightsOf::Everyone => false,
        }
    }

    /// Whether the sign-in or key still stands, its role has the permission, and no policy hides
    /// the session. A token's end is not looked at: it bounds how long one may begin to read.
    async fn may_read(&self, app: &App, session: Option<SessionId>) -> anyhow::Result<bool> {
        let workspace = self.principal.workspace;
        let role = match (self.principal.who, self.principal.sign_in) {
            (Who::User(user), Some(sign_in)) => {
                let found = rights::of_sign_in(app, user, sign_in, Some(workspace)).await?;
                let member = found.and_then(|rights| rights.member);
                member.map(|(role, _)| Role::Member(role))
            }
            (Who::Key(key), _) => {
                let found = rights::of_key_id(app, key).await?;
                found.map(|(principal, _)| principal.role)
            }
            // Clients without a credential have what the operator set when this process began.
            _ => Some(self.principal.role),
        };
        let Some(role) = role.filter(|role| role.may(self.permission)) else {
            return Ok(false);
        };
        let Some(session) = session else {
            return Ok(true);
        };
        let device = match self.principal.device {
            Some((device, _)) => devices::trusted(app, &self.principal, device).await?,
            None => None,
        };
        let principal = Principal {
            role,
            device,
            ..self.principal.clone()
        };
        let rules = policies::rules(app, &principal).await;
        let rules = rules.map_err(|error| anyhow::anyhow!("read policies: {}", error.code()))?;
        Ok(rules.shows(&principal, session))
    }
}
