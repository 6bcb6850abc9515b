//! Health and status, for load balancers and people.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::app::App;
use crate::executions;

/// How long a part may take to answer; load balancers do not wait much longer.
const CHECK_WITHIN: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    checks: Checks,
}

#[derive(Serialize)]
struct Checks {
    postgres: &'static str,
    redis: &'static str,
    s3: &'static str,
}

/// `GET /health`: 503 only without Postgres or while draining.
pub async fn health(State(app): State<App>) -> Response {
    let (postgres, redis, s3) = tokio::join!(
        in_time(app.database_is_up()),
        in_time(app.bus.is_up()),
        in_time(app.blobs.is_up()),
    );
    let draining = is_going(&app);
    let word = |up: bool| if up { "ok" } else { "down" };
    let health = Health {
        status: if postgres && redis && s3 && !draining {
            "ok"
        } else {
            "degraded"
        },
        version: env!("CARGO_PKG_VERSION"),
        checks: Checks {
            postgres: word(postgres),
            redis: word(redis),
            s3: word(s3),
        },
    };
    let status = if postgres && !draining {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(health)).into_response()
}

/// A part that does not answer in time is down.
async fn in_time(check: impl Future<Output = bool>) -> bool {
    tokio::time::timeout(CHECK_WITHIN, check)
        .await
        .unwrap_or(false)
}

/// `GET /health/live`: the process answers; nothing is checked. 503 once it is going to stop.
pub async fn live(State(app): State<App>) -> (StatusCode, &'static str) {
    if is_going(&app) {
        (StatusCode::SERVICE_UNAVAILABLE, "leaving")
    } else {
        (StatusCode::OK, "ok")
    }
}

fn is_going(app: &App) -> bool {
    app.shutdown.leaving().is_cancelled() || app.shutdown.soft().is_cancelled()
}

/// `GET /status`: 429 when no worker is idle, as load balancers of older clients expect.
pub async fn status(State(app): State<App>) -> Response {
    match executions::status(&app).await {
        Ok(status) => {
            let code = if status.workers.idle == 0 {
                StatusCode::TOO_MANY_REQUESTS
            } else {
                StatusCode::OK
            };
            (code, Json(status)).into_response()
        }
        Err(error) => error.into_response(),
    }
}
