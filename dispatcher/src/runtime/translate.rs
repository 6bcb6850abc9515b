//! Where two generations share a path, the newer one is served, and requests that are
//! unmistakably of the older kind are translated: their snake_case into our camelCase, our
//! answers back, lists without their envelope.
//!
//! Unmistakable is a request without `Authorization` that names a client session or a tenant in
//! its query. Everything else is of the newer kind, whatever its fields look like.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::ApiResult;
use crate::http::extract::read_body;

/// Paths that both generations have.
const SHARED: [&str; 3] = ["/api/projects", "/api/tasks", "/api/tenants"];
/// Parameters that only the older generation sends in queries.
const MARKS: [&str; 2] = ["session_id", "tenant_id"];
/// Fields with content of the caller's own, whose keys mean nothing to us.
const OPAQUE: [&str; 3] = ["config", "metadata", "context"];

/// Largest answer that is translated, in bytes; a page of tasks is far below it.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The middleware around all routes.
pub async fn translate(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> ApiResult<Response> {
    // Where nobody without a credential is served, nothing is read for them either.
    let is_served = app.tuning.anonymous_workspace.is_some();
    if !is_served || !is_older(request.uri(), request.headers()) {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    let bytes = read_body(body, app.tuning.max_body_bytes, app.tuning.request).await?;
    let body = match serde_json::from_slice(&bytes) {
        Ok(value) => Body::from(renamed(value, &camel).to_string()),
        // Whoever reads it says what is wrong.
        Err(_) => Body::from(bytes),
    };
    let mut parts = parts;
    parts.headers.remove(header::CONTENT_LENGTH);
    let response = next.run(Request::from_parts(parts, body)).await;
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !is_json || !response.status().is_success() {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, MAX_ANSWER)
        .await
        .map_err(anyhow::Error::from)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?;
    parts.headers.remove(header::CONTENT_LENGTH);
    let text = renamed(bare(value), &snake).to_string();
    Ok(Response::from_parts(parts, Body::from(text)))
}

fn is_older(uri: &Uri, headers: &HeaderMap) -> bool {
    let path = uri.path();
    let is_shared = SHARED.iter().any(|shared| {
        path.strip_prefix(shared)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let names = || uri.query().unwrap_or_default().split('&');
    let is_marked = || names().any(|pair| MARKS.contains(&pair.split('=').next().unwrap_or(pair)));
    is_shared && !headers.contains_key(header::AUTHORIZATION) && is_marked()
}

/// A list without its envelope, `{"tasks": […], …}`.
fn bare(value: Value) -> Value {
    let Value::Object(mut object) = value else {
        return value;
    };
    for name in ["projects", "tasks", "tenants"] {
        if let Some(list) = object.remove(name) {
            return list;
        }
    }
    Value::Object(object)
}

/// The same with other names of fields.
fn renamed(value: Value, rename: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Array(list) => list
            .into_iter()
            .map(|value| renamed(value, rename))
            .collect(),
        Value::Object(object) => {
            let fields = object.into_iter().map(|(name, value)| {
                let value = match OPAQUE.contains(&name.as_str()) {
                    true => value,
                    false => renamed(value, rename),
                };
                (rename(&name), value)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn camel(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut is_next_upper = false;
    for c in name.chars() {
        match c {
            '_' if !text.is_empty() => is_next_upper = true,
            _ if is_next_upper => {
                text.extend(c.to_uppercase());
                is_next_upper = false;
            }
            _ => text.push(c),
        }
    }
    text
}

fn snake(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
            text.push(c.to_ascii_lowercase());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_go_there_and_back() {
        let ours = json!({"projectId": 1, "config": {"aB": 1}, "list": [{"dueDate": null}]});
        let theirs = json!({"project_id": 1, "config": {"aB": 1}, "list": [{"due_date": null}]});
        assert_eq!(renamed(ours.clone(), &snake), theirs);
        assert_eq!(renamed(theirs, &camel), ours);
    }

    #[test]
    fn only_what_is_unmistakable_is_older() {
        let older =
            |uri: &str, headers: &HeaderMap| is_older(&uri.parse().expect("a URI"), headers);
        let none = HeaderMap::new();
        let mut key = HeaderMap::new();
        key.insert(
            header::AUTHORIZATION,
            header::HeaderValue::from_static("Bearer x"),
        );
        assert!(older("/api/tasks?session_id=a", &none));
        assert!(older("/api/projects/7?x=1&tenant_id=2", &none));
        assert!(
            !older("/api/tasks?session_id=a", &key),
            "newer by its credential"
        );
        assert!(!older("/api/tasks?project_id=1", &none));
        assert!(!older("/api/tasksomething?session_id=a", &none));
        assert!(!older("/sessions?session_id=a", &none));
    }
}
