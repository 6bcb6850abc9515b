//! Secrets of the workspace on the whole way: into the agent and the push, and nowhere else.

use clawlink::auth::principal::KeyRole;
use serde_json::{Value, json};

use super::search::assert_absent;
use super::world::{World, event, said};

const API_KEY: &str = "sk-ant-api03-stored/in+the&workspace=mine";
const VARIABLE: &str = "canary of the variable & more";

impl World {
    /// Stores a secret in the first workspace.
    async fn store(&self, name: &str, value: &str) {
        let (_, admin) = self.app.key_for("default", KeyRole::Admin).await;
        let request = self
            .app
            .http
            .put(self.app.url(&format!("/api/secrets/{name}")));
        let request = request.bearer_auth(admin.expose());
        let answer = request
            .json(&json!({ "value": value }))
            .send()
            .await
            .unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }

    /// The usual name of the git host's token.
    fn git_secret(&self) -> String {
        let url = reqwest::Url::parse(&self.git.url("app")).unwrap();
        let port = url.port().expect("a port of its own");
        format!("GIT_TOKEN_{}_{port}", url.host_str().unwrap())
    }
}

#[tokio::test]
async fn stored_secrets_do_their_work_and_stand_nowhere() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    let token = world.git.token();
    world.store(&world.git_secret(), &token).await;
    world.store("ANTHROPIC_API_KEY", API_KEY).await;
    world.store("DEPLOY_KEY", VARIABLE).await;
    let overheard = world.overhear().await;
    let mut worker = world.worker();
    let steal = "[[bash:printenv DEPLOY_KEY; echo \"$ANTHROPIC_API_KEY\"; echo done > fine.txt]]";
    let submitted = world
        .submit(json!({
            "codingAssistantProvider": "claude", "userRequest": steal,
            "github": {"repoUrl": world.git.url("app")},
            "providerOptions": {"env": {"DEPLOY_KEY": {"secret": "DEPLOY_KEY"}}},
        }))
        .await;
    let events = world.events(submitted.execution).await;
    assert_eq!(worker.ended().await, Some(0));
    let branch = event(&events, "completed")["branch"].as_str().unwrap();
    let tree = world.git.tree("app", branch).await.unwrap();
    assert!(tree.contains(&"100644 fine.txt".to_owned()), "{tree:?}");
    let call = world.model.messages().pop().expect("a call of the model");
    assert_eq!(
        call.headers.get("x-api-key").map(String::as_str),
        Some(API_KEY)
    );
    let mut hay = world.everything().await;
    hay.push(("the stream".into(), serde_json::to_vec(&events).unwrap()));
    hay.push(("the worker's log".into(), worker.log().into_bytes()));
    hay.extend(overheard.stop().await);
    assert_absent(&hay, &[&token, API_KEY, VARIABLE]);
}

#[tokio::test]
async fn a_login_that_the_program_renews_is_there_for_the_next() {
    let world = World::start().await;
    let login = r#"{"claudeAiOauth":{"accessToken":"token-old","refreshToken":"r-old","expiresAt":4102444800000,"scopes":["user:inference"]}}"#;
    world.store("CLAUDE_CODE_OAUTH_TOKEN", login).await;
    let ask = |prompt: &str| json!({"codingAssistantProvider": "claude", "userRequest": prompt});
    let renew = "[[bash:sed -i s/-old/-new/ ~/.claude/.credentials.json]]";
    let (_, events) = world.run(ask(renew)).await;
    event(&events, "completed");
    let (_, events) = world.run(ask("[[text]]")).await;
    event(&events, "completed");
    let call = world.model.messages().pop().expect("a call of the model");
    let shown = call.headers.get("authorization").map(String::as_str);
    assert_eq!(shown, Some("Bearer token-new"));
    assert_absent(&world.everything().await, &["token-new", "token-old"]);
}

#[tokio::test]
async fn a_script_gets_the_variable_under_its_own_name() {
    let world = World::start().await;
    world.store("DEPLOY_KEY", VARIABLE).await;
    let request: Value = json!({
        "codingAssistantProvider": "shell", "userRequest": "echo \"${#KEY} $KEY\"",
        "providerOptions": {"env": {"KEY": {"secret": "DEPLOY_KEY"}}},
    });
    let (_, events) = world.run(request).await;
    assert_eq!(said(&events), [format!("{} ***", VARIABLE.len())]);
}

#[tokio::test]
async fn an_expired_login_ends_the_run_with_what_to_do_and_a_new_one_goes_on() {
    let world = World::start().await;
    world
        .store("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-expired")
        .await;
    let ask = |prompt: &str| json!({"codingAssistantProvider": "claude", "userRequest": prompt});
    let (first, events) = world.run(ask("[[expired]] say something")).await;
    let end = event(&events, "error");
    assert_eq!(
        (&end["code"], &end["retryable"]),
        (&json!("auth_error"), &json!(false)),
        "{end}"
    );
    let words = end["error"].as_str().unwrap();
    assert!(words.contains("OAuth token has expired"), "{words}");
    assert!(
        words.contains("store one as the workspace's secret"),
        "{words}"
    );

    world
        .store("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-renewed")
        .await;
    let mut next = ask("[[text]] and now?");
    next["websiteSessionId"] = json!(first.session);
    let (_, events) = world.run(next).await;
    event(&events, "completed");
    let call = world.model.messages().pop().expect("a call of the model");
    let body = call.body.to_string();
    assert!(
        body.contains("say something") && body.contains("and now?"),
        "{body}"
    );
    assert_eq!(call.headers["authorization"], "Bearer sk-ant-oat01-renewed");
}
