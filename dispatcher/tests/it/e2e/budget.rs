//! The real claude at limits: of money, and of its model.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::world::{World, event};

/// The table and the CLI price it alike: $0.000675 for each of the scripted model's answers.
const MODEL: &str = "claude-sonnet-4-5";

impl World {
    async fn with_repository() -> Self {
        let world = Self::start().await;
        world.git.create_repo("app", &[("a", "1")]).await.unwrap();
        world
    }

    fn ask(&self, prompt: &str) -> Value {
        let mut request = self.on_repository("app", "claude", prompt);
        request["providerOptions"] = json!({"model": MODEL});
        request
    }

    /// The same for a session that exists.
    fn go_on(&self, session: &str, prompt: &str) -> Value {
        let mut request = self.ask(prompt);
        request["websiteSessionId"] = json!(session);
        request["github"] =
            json!({"repoUrl": self.git.url("app"), "accessToken": self.git.token()});
        request
    }
}

fn messages(events: &[Value]) -> Vec<&str> {
    let messages = events.iter().filter(|event| event["type"] == "message");
    messages
        .filter_map(|event| event["message"].as_str())
        .collect()
}

#[tokio::test]
async fn a_day_without_money_stops_claude_inside_a_tool_and_a_raise_lets_it_go_on() {
    let world = World::with_repository().await;
    let mut before = world.on_repository("app", "shell", "echo half > done.txt");
    before["autoCommit"] = json!(false);
    let (first, _) = world.run(before).await;
    world.app.limit(json!({"dailyBudgetUsd": 0.0006})).await;
    // Only the first answer of the model is paid for.
    let mut long = world.go_on(&first.session, "[[sleep]]");
    long["autoCommit"] = json!(true);
    let (first, events) = world.run(long).await;
    let end = event(&events, "error");
    assert_eq!(end["code"], "budget_exceeded", "{end}");
    let words = end["error"].as_str().unwrap();
    assert!(words.contains("$0.0006"), "{words}");
    // What there was is delivered.
    let branch = end["branch"].as_str().expect("a branch");
    let tree = world.git.tree("app", branch).await.unwrap();
    assert!(tree.contains(&"100644 done.txt".to_owned()), "{tree:?}");
    let shown = world.execution(first.execution).await;
    assert_eq!(shown["usage"]["inputTokens"], 100, "{shown}");
    assert_eq!(shown["usage"]["costUsd"], 0.000_675, "{shown}");

    let again = world.go_on(&first.session, "[[text]] go on");
    let answer = world.app.execute(&again).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    world.app.limit(json!({"dailyBudgetUsd": 1})).await;
    let (next, events) = world.run(again).await;
    let result = event(&events, "completed")["result"].as_str().unwrap();
    assert!(
        result.contains("I have seen 2 marked user turns"),
        "{result}"
    );
    let shown = world.execution(next.execution).await;
    assert_eq!(
        shown["usage"]["inputTokens"], 100,
        "this turn's alone: {shown}"
    );
    let sessions = world.app.usage("groupBy=session").await;
    assert_eq!(sessions["groups"][0]["costUsd"], 0.001_35, "{sessions}");
}

#[tokio::test]
async fn a_session_without_money_of_its_own_stops_claude_and_a_raise_lets_it_go_on() {
    let world = World::with_repository().await;
    let mut long = world.ask("[[sleep]]");
    long["sessionBudgetUsd"] = json!(0.0006);
    let (first, events) = world.run(long).await;
    let end = event(&events, "error");
    assert_eq!(end["code"], "budget_exceeded", "{end}");
    let words = end["error"].as_str().unwrap();
    assert!(words.contains("the session has cost"), "{words}");
    let again = world.go_on(&first.session, "[[text]] go on");
    let answer = world.app.execute(&again).send().await.unwrap();
    assert_eq!(answer.status(), 403);

    let admin = world.app.admin_key().await;
    let raise = json!({"sessionBudgetUsd": 1});
    let (status, _) = world
        .app
        .limit_session(&admin, &first.session, &raise)
        .await;
    assert_eq!(status, 200);
    let (_, events) = world.run(again).await;
    let result = event(&events, "completed")["result"].as_str().unwrap();
    assert!(
        result.contains("I have seen 2 marked user turns"),
        "{result}"
    );
}

#[tokio::test]
async fn a_limit_of_the_model_that_is_over_soon_is_waited_out() {
    let world = World::with_repository().await;
    let worker = world.patient_worker(60);
    // The CLI gives up after four calls.
    let submitted = world.submit(world.ask("[[err429:5]] say something")).await;
    let events = world.events(submitted.execution).await;
    assert_eq!(worker.exit_code().await, Some(0));
    let end = event(&events, "completed");
    assert!(end["result"].as_str().unwrap().contains("Hello"), "{end}");
    let told = messages(&events);
    let waits = told
        .iter()
        .filter(|text| text.contains("the agent goes on at 20"));
    assert_eq!(waits.count(), 1, "{told:#?}");
    // One answer came, and one is counted.
    assert_eq!(end["usage"]["inputTokens"], 100, "{end}");
    assert_eq!(end["usage"]["outputTokens"], 25, "{end}");
}

#[tokio::test]
async fn a_limit_of_the_model_that_lasts_ends_the_run_and_keeps_the_session() {
    let world = World::with_repository().await;
    let over = OffsetDateTime::now_utc().unix_timestamp() + 3 * 3600;
    let prompt = format!("[[limit:usage limit reached|{over}]] say something");
    let (first, events) = world.run(world.ask(&prompt)).await;
    let end = event(&events, "error");
    assert_eq!(end["code"], "rate_limited", "{end}");
    assert_eq!(end["retryable"], true);
    assert!(
        !messages(&events)
            .iter()
            .any(|text| text.contains("goes on at"))
    );

    let (_, events) = world
        .run(world.go_on(&first.session, "[[text]] and now?"))
        .await;
    event(&events, "completed");
    let last = world.model.messages().pop().unwrap().body.to_string();
    assert!(
        last.contains("say something") && last.contains("and now?"),
        "{last}"
    );
}
