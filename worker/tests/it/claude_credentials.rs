//! How credentials reach the real CLI, and where they must not be found.

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use serde_json::json;

use crate::agent_job::Session;
use crate::claude_run::claude;

fn has_login(session: &Session) -> bool {
    session.home().join(".claude/.credentials.json").exists()
}

#[tokio::test]
async fn credentials_travel_in_four_ways() {
    let login = json!({"claudeAiOauth": {
        "accessToken": "sk-ant-oat01-login", "refreshToken": "sk-ant-ort01-login",
        "expiresAt": 4_102_444_800_000_u64, "scopes": ["user:inference"],
        "subscriptionType": "max",
    }});
    let cases = [
        (
            "sk-ant-api03-raw".to_owned(),
            "x-api-key",
            "sk-ant-api03-raw",
        ),
        (
            json!({"apiKey": "sk-ant-api03-json"}).to_string(),
            "x-api-key",
            "sk-ant-api03-json",
        ),
        (
            "sk-ant-oat01-raw".to_owned(),
            "authorization",
            "Bearer sk-ant-oat01-raw",
        ),
        (
            json!({"oauthToken": "sk-ant-oat01-json"}).to_string(),
            "authorization",
            "Bearer sk-ant-oat01-json",
        ),
        (
            json!({"authToken": "gateway-token"}).to_string(),
            "authorization",
            "Bearer gateway-token",
        ),
        (
            login.to_string(),
            "authorization",
            "Bearer sk-ant-oat01-login",
        ),
    ];
    for (credential, header, value) in cases {
        let (session, model) = (Session::new(), Model::start().await.unwrap());
        let mut run = claude(&session, &model, "[[text]]");
        run.credential = Some(Secret::new(credential));
        let ended = run.finish(AgentKind::Claude).await;
        assert_eq!(ended.end.failure, None, "{value}");
        let headers = &model.messages()[0].headers;
        assert_eq!(headers.get(header).map(String::as_str), Some(value));
        assert!(ended.end.refreshed_credential.is_none());
        assert!(!has_login(&session), "the login is removed");
    }
}

#[tokio::test]
async fn login_is_written_over_what_the_agent_prepared() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let target = session.outside().join("target");
    std::fs::write(&target, "untouched").unwrap();
    std::os::unix::fs::symlink(session.outside(), session.home().join(".claude")).unwrap();
    let renew = r#"[[bash:sed -i s/-old/-new/ ~/.claude/.credentials.json]]"#;
    let mut run = claude(&session, &model, renew);
    let login = r#"{"claudeAiOauth":{"accessToken":"token-old","refreshToken":"r-old","expiresAt":4102444800000,"scopes":["user:inference"]}}"#;
    run.credential = Some(Secret::new(login));
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure, None);
    let renewed = ended
        .end
        .refreshed_credential
        .expect("the file has changed");
    assert!(renewed.expose().contains("token-new"));
    assert!(!has_login(&session));
    assert!(!session.outside().join(".credentials.json").exists());
    assert_eq!(std::fs::read_to_string(target).unwrap(), "untouched");
}

#[tokio::test]
async fn missing_credential_is_an_auth_error() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = claude(&session, &model, "[[text]]");
    run.credential = None;
    let ended = run.finish(AgentKind::Claude).await;
    assert_eq!(ended.end.failure.unwrap().code, ErrorCode::AuthError);
}

#[tokio::test]
async fn credential_of_unknown_shape_is_refused() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    let mut run = claude(&session, &model, "[[text]]");
    run.credential = Some(Secret::new(r#"{"password":"hunter2hunter2"}"#));
    let failure = run.finish(AgentKind::Claude).await.end.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::ValidationError);
    assert!(!failure.message.contains("hunter2"));
}

#[tokio::test]
async fn key_is_not_on_any_command_line() {
    let (session, model) = (Session::new(), Model::start().await.unwrap());
    // Brackets keep the search from finding itself.
    let prompt = r"[[bash:cat /proc/[0-9]*/cmdline | tr '\0' ' ' | grep -ao 'input-format [s]tream-json\|sk-ant-[a]pi03-scripted']]";
    let ended = claude(&session, &model, prompt)
        .finish(AgentKind::Claude)
        .await;
    let output = ended.texts(EventType::AgentToolResult, "output");
    assert!(output.contains("stream-json"), "{output}");
    assert!(!output.contains("sk-ant-api03-scripted"));
}
