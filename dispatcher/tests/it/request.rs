//! Hostile and faulty bodies: refused with all their faults, never answered with 5xx.

use clap::FromArgMatches;
use clawlink::config::{Settings, Tuning};
use clawlink::executions::request;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::{refusal, script};

fn tuning() -> Tuning {
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("test"));
    let matches = command.get_matches_from(["test"]);
    Settings::from_arg_matches(&matches).unwrap().tuning
}

/// Faulty fields of a body that is not sent anywhere.
fn faults(body: &Value) -> Vec<String> {
    faults_with(body, &tuning())
}

fn faults_with(body: &Value, tuning: &Tuning) -> Vec<String> {
    use axum::response::IntoResponse;
    let Err(error) = request::parse(body, tuning) else {
        return Vec::new();
    };
    let body = error.into_response().into_body();
    let body = futures::executor::block_on(axum::body::to_bytes(body, usize::MAX)).unwrap();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    let errors = problem["errors"].as_array().unwrap().iter();
    errors
        .map(|fault| fault["field"].as_str().unwrap().to_owned())
        .collect()
}

fn with(field: &str, value: Value) -> Value {
    let mut body = script("true");
    body[field] = value;
    body
}

#[tokio::test]
async fn all_faults_come_in_one_answer() {
    let test = TestApp::start().await;
    let body = json!({
        "codingAssistantProvider": "nobody",
        "websiteSessionId": "not-a-uuid",
        "github": {"repoUrl": "https://user:password@github.com/a/b", "branch": "a..b",
            "directory": "../etc", "token": "x"},
        "branchName": "-x",
        "providerOptions": {"maxTurns": 0, "maxBudgetUsd": -1, "timeoutSeconds": 1_000_000,
            "permissionMode": "yolo", "model": "--flag", "temperature": 1,
            "env": {"PATH": "/x", "1A": "x", "OK": 3, "LD_PRELOAD": "x"}},
        "priority": "urgent",
        "onWorkerLost": "shrug",
        "cancelOnDisconnect": "yes",
        "surprise": true,
    });
    let (status, problem) = refusal(test.execute(&body)).await;
    assert_eq!(
        (status, &problem["error"]),
        (400, &json!("invalid_request"))
    );
    let errors = problem["errors"].as_array().unwrap();
    let mut fields: Vec<&str> = errors
        .iter()
        .map(|fault| fault["field"].as_str().unwrap())
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "branchName",
            "cancelOnDisconnect",
            "codingAssistantProvider",
            "github.branch",
            "github.directory",
            "github.repoUrl",
            "github.token",
            "onWorkerLost",
            "priority",
            "providerOptions.env.1A",
            "providerOptions.env.LD_PRELOAD",
            "providerOptions.env.OK",
            "providerOptions.env.PATH",
            "providerOptions.maxBudgetUsd",
            "providerOptions.maxTurns",
            "providerOptions.model",
            "providerOptions.permissionMode",
            "providerOptions.temperature",
            "providerOptions.timeoutSeconds",
            "surprise",
            "userRequest",
            "websiteSessionId",
        ]
    );
    assert!(problem["field"].is_string());
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused_in_our_own_shape() {
    let test = TestApp::start_with(|settings| settings.tuning.max_body_bytes = 10_000).await;
    let send = |kind: &'static str, body: Vec<u8>| {
        test.post("/execute")
            .header("content-type", kind)
            .body(body)
    };
    let nested = "[".repeat(5000);
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\"x\"",
        "{\"userRequest\":\"\\ud800\"}",
        &nested,
    ] {
        let (status, problem) = refusal(send("application/json", body.into())).await;
        assert_eq!(
            (status, &problem["error"]),
            (400, &json!("invalid_request")),
            "{body:.40}"
        );
    }
    let (status, _) = refusal(send(
        "application/json",
        b"{\"userRequest\":\"\xff\"}".to_vec(),
    ))
    .await;
    assert_eq!(status, 400);
    let (status, problem) = refusal(send("text/plain", b"{}".to_vec())).await;
    assert_eq!(
        (status, &problem["error"]),
        (415, &json!("unsupported_media_type"))
    );
    let (status, problem) = refusal(send("application/json", vec![b' '; 10_001])).await;
    assert_eq!(
        (status, &problem["error"]),
        (413, &json!("payload_too_large"))
    );
}

#[test]
fn nul_is_refused_wherever_it_stands() {
    assert_eq!(faults(&script("a\0b")), ["userRequest"]);
    let body = with("providerOptions", json!({"env": {"A": "x\0"}}));
    assert_eq!(faults(&body), ["providerOptions.env.A"]);
    let body = with("userRequest", json!([{"type": "text", "text": "\0"}]));
    assert_eq!(faults(&body), ["userRequest[0].text"]);
}

#[test]
fn prompts_are_text_or_parts() {
    let image = |kind: &str, data: &str| {
        let source = json!({"type": "base64", "media_type": kind, "data": data});
        let mut body = with("userRequest", json!([{"type": "image", "source": source}]));
        body["codingAssistantProvider"] = json!("claude");
        body["codingAssistantAuthentication"] = json!("key");
        faults(&body)
    };
    assert!(image("image/png", "iVBORw0KGgo=").is_empty());
    assert_eq!(
        image("image/png", "not base64"),
        ["userRequest[0].source.data"]
    );
    assert_eq!(
        image("image/tiff", "AAAA"),
        ["userRequest[0].source.media_type"]
    );
    for bad in [
        json!(""),
        json!("  "),
        json!([]),
        json!(7),
        json!({"a": 1}),
        json!(null),
    ] {
        assert_eq!(faults(&with("userRequest", bad)), ["userRequest"]);
    }
    let unknown =
        json!([{"type": "video"}, {"type": "text"}, {"type": "text", "text": "x", "y": 1}]);
    let expected = [
        "userRequest[0].type",
        "userRequest[1].text",
        "userRequest[2].y",
    ];
    assert_eq!(faults(&with("userRequest", unknown)), expected);
}

#[test]
fn credentials_that_cannot_be_had_are_faults() {
    const AGENT: &str = "codingAssistantAuthentication";
    assert!(faults(&with(AGENT, json!({"secret": "NAME"}))).is_empty());
    assert_eq!(faults(&with(AGENT, json!("FROM_ENV"))), [AGENT]);
    assert_eq!(faults(&with(AGENT, json!({}))), [AGENT]);
    assert!(faults(&with(AGENT, json!({"claudeAiOauth": {"accessToken": "x"}}))).is_empty());
    for token in [json!("FROM_ENV"), json!("a b"), json!(1)] {
        let github = json!({"repoUrl": "https://h/a/b", "accessToken": token});
        assert_eq!(faults(&with("github", github)), ["github.accessToken"]);
    }
}

#[test]
fn the_operators_credential_goes_where_the_operator_says() {
    const AGENT: &str = "codingAssistantAuthentication";
    let mut tuning = tuning();
    tuning.default_agent_credential = Some("configured".to_owned().into());
    let mut body = with(
        "providerOptions",
        json!({"env": {"ANTHROPIC_BASE_URL": "https://h", "X": "y"}}),
    );
    body[AGENT] = json!("of my own");
    assert!(faults_with(&body, &tuning).is_empty());
    body[AGENT] = json!("FROM_ENV");
    assert_eq!(
        faults_with(&body, &tuning),
        ["providerOptions.env.ANTHROPIC_BASE_URL"]
    );
}

#[tokio::test]
async fn images_go_only_to_agents_that_take_them() {
    let test = TestApp::start().await;
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    let prompt = json!([{"type": "text", "text": "look"}, {"type": "image", "source": source}]);
    for (agent, takes_them) in [
        ("claude", true),
        ("codex", true),
        ("opencode", true),
        ("gemini", true),
        ("auggie", true),
        ("openrouter", true),
        ("openhands", false),
        ("goose", false),
        ("shell", false),
    ] {
        let mut body = with("userRequest", prompt.clone());
        body["codingAssistantProvider"] = json!(agent);
        body["codingAssistantAuthentication"] = json!("a-credential");
        let call = test.execute(&body).header("accept", "application/json");
        if takes_them {
            assert_eq!(call.send().await.unwrap().status(), 202, "{agent}");
            continue;
        }
        let (status, problem) = refusal(call).await;
        assert_eq!(status, 400, "{agent}");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{problem}");
        assert_eq!(errors[0]["field"], "userRequest");
    }
}

#[tokio::test]
async fn the_operators_git_token_goes_to_its_host_only() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.default_git_token = Some("configured".to_owned().into());
    })
    .await;
    let body = |github: Value| with("github", github);
    let default = json!({"repoUrl": "https://github.com/a/b", "accessToken": "FROM_ENV"});
    test.accepted(&body(default)).await;
    let elsewhere = json!({"repoUrl": "https://h/a/b", "accessToken": "FROM_ENV"});
    let (status, problem) = refusal(test.execute(&body(elsewhere))).await;
    assert_eq!(
        (status, &problem["field"]),
        (400, &json!("github.accessToken"))
    );
    // Nor to the repository that a session brings with it.
    let own = json!({"repoUrl": "https://h/a/b", "accessToken": "mine"});
    let accepted = test.accepted(&body(own)).await;
    let mut resumed = body(json!({"accessToken": "FROM_ENV"}));
    resumed["websiteSessionId"] = json!(accepted.session_id);
    let (status, problem) = refusal(test.execute(&resumed)).await;
    assert_eq!(
        (status, &problem["field"]),
        (400, &json!("github.accessToken"))
    );
}

#[test]
fn long_keys_and_many_faults_stay_bounded() {
    let mut body = script("true");
    for n in 0..500 {
        body[format!("{n}{}", "k".repeat(1000))] = json!(1);
    }
    let faults = faults(&body);
    assert_eq!(faults.len(), 51);
    assert!(faults.iter().all(|field| field.len() < 100));
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "shell",
        "claude",
        "text",
        "image",
        "base64",
        "FROM_ENV",
        "main",
        "../x",
        "a\0b",
        "",
        "https://h/a",
        "00000000-0000-0000-0000-000000000000",
        "\u{feff}",
        "𝕏",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "userRequest",
        "codingAssistantProvider",
        "codingAssistantAuthentication",
        "github",
        "repoUrl",
        "branch",
        "directory",
        "accessToken",
        "depth",
        "providerOptions",
        "env",
        "model",
        "maxTurns",
        "maxBudgetUsd",
        "timeoutSeconds",
        "type",
        "text",
        "source",
        "data",
        "media_type",
        "secret",
        "websiteSessionId",
        "resumeSessionId",
        "autoCommit",
        "database",
        "createPullRequest",
        "sessionName",
        "branchName",
        "priority",
        "taskId",
        "zzz",
    ]);
    leaf.prop_recursive(4, 64, 12, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..12).prop_map(|pairs| {
                let pairs = pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                Value::Object(pairs.collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_json_makes_validation_panic(body in any_json()) {
        if request::parse(&body, &tuning()).is_err() {
            prop_assert!(!faults(&body).is_empty());
        }
    }
}

#[test]
fn no_body_is_answered_with_5xx() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let test = runtime.block_on(TestApp::start());
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..Default::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let bodies = prop_oneof![
        any_json().prop_map(|body| body.to_string().into_bytes()),
        // Valid but for what is put in.
        any_json().prop_map(|value| with("providerOptions", value).to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
    ];
    runner
        .run(&bodies, |body| {
            let request = test
                .post("/execute")
                .header("accept", "application/json")
                .header("content-type", "application/json")
                .timeout(std::time::Duration::from_secs(10))
                .body(body);
            let answer = runtime.block_on(request.send()).unwrap();
            prop_assert!(matches!(answer.status().as_u16(), 202 | 400 | 404 | 429));
            Ok(())
        })
        .unwrap();
    runtime.block_on(async { drop(test) });
}
