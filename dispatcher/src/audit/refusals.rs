//! Refusals in the log: a caller whom we know and who may not is an entry, a stranger a count.

use std::net::IpAddr;

use axum::http::StatusCode;
use serde_json::json;

use super::{Actor, Entry, Outcome, record};
use crate::app::App;
use crate::auth::principal::{Person, Principal};
use crate::http::routes::Access;

/// Who was refused.
#[derive(Debug)]
pub struct Caller {
    /// In a workspace, if the credential was good for one.
    pub principal: Option<Principal>,
    /// Signed in, if no workspace is chosen.
    pub person: Option<Person>,
    /// Where the request came from.
    pub address: Option<IpAddr>,
}

/// Notes an answer's status if it is a refusal: 403 of a known caller is recorded with the route
/// (`GET /path/{parameter}`), 401 is counted. What cannot be written is logged: the refusal stands.
pub async fn note(app: &App, caller: &Caller, access: Access, route: &str, status: StatusCode) {
    if status == StatusCode::UNAUTHORIZED {
        app.denials.count(caller.address);
        return;
    }
    if status != StatusCode::FORBIDDEN {
        return;
    }
    let (workspace, actor) = match (&caller.principal, &caller.person) {
        (Some(principal), _) => (Some(principal.workspace), Actor::from(principal)),
        (None, Some(person)) => (None, Actor::from(person)),
        (None, None) => {
            app.denials.count(caller.address);
            return;
        }
    };
    let permission = match access {
        Access::Needs(permission) => Some(permission.as_str()),
        _ => None,
    };
    let entry = Entry {
        workspace,
        actor: &actor,
        action: "access.denied",
        resource: Some(("route", route.to_owned())),
        outcome: Outcome::Denied,
        details: json!({ "permission": permission }),
    };
    let written = async {
        let mut db = app.db.acquire().await?;
        record(&mut db, &entry).await
    };
    if let Err(error) = written.await {
        tracing::error!(error = format!("{error:#}"), route, "refusal not recorded");
    }
}
