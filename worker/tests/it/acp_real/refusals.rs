//! What the agents make of a model that refuses them: an end within a bound, with a code.

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::ErrorCode;

use super::run;
use crate::agent_job::Session;

/// Most calls that one run may make of such a model: auggie asks again for a minute.
const MAX_CALLS: usize = 100;

/// A model that answers this to every call ends the run within a bound, with the code for it.
async fn gives_up(kind: AgentKind, prompt: &str, code: ErrorCode) {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let ended = run(&session, &model, kind, prompt).finish(kind).await;
    let failure = ended.end.failure.unwrap();
    assert_eq!(failure.code, code, "{}", failure.message);
    let calls = model.messages().len();
    assert!((1..=MAX_CALLS).contains(&calls), "{calls} calls");
}

#[tokio::test]
async fn opencodes_credentials_are_refused() {
    gives_up(AgentKind::Openai, "[[err401]]", ErrorCode::AuthError).await;
}

#[tokio::test]
async fn opencodes_limit_lasts() {
    gives_up(AgentKind::Openai, "[[err429]]", ErrorCode::RateLimited).await;
}

#[tokio::test]
async fn opencodes_model_is_broken() {
    gives_up(AgentKind::Openai, "[[err500]]", ErrorCode::AgentError).await;
}

#[tokio::test]
async fn geminis_credentials_are_refused() {
    gives_up(AgentKind::Gemini, "[[err401]]", ErrorCode::AuthError).await;
}

#[tokio::test]
async fn geminis_limit_lasts() {
    gives_up(AgentKind::Gemini, "[[err429]]", ErrorCode::RateLimited).await;
}

#[tokio::test]
async fn geminis_model_is_broken() {
    gives_up(AgentKind::Gemini, "[[err500]]", ErrorCode::AgentError).await;
}

#[tokio::test]
async fn auggies_credentials_are_refused() {
    gives_up(AgentKind::Auggie, "[[err401]]", ErrorCode::AuthError).await;
}

#[tokio::test]
async fn auggies_limit_lasts() {
    gives_up(AgentKind::Auggie, "[[err429]]", ErrorCode::RateLimited).await;
}

#[tokio::test]
async fn auggies_model_is_broken() {
    gives_up(AgentKind::Auggie, "[[err500]]", ErrorCode::AgentError).await;
}
