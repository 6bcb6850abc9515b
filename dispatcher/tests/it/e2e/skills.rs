//! A workspace's skills reach the agents' programs, and nothing else.

use clawlink::auth::principal::KeyRole;
use serde_json::{Value, json};

use super::world::{World, event, said};

const DESCRIPTION: &str = "How greetings are spelt in this house";

impl World {
    /// Makes a skill with instructions that the workspace has taken.
    async fn take_skill(&self) {
        let (_, key) = self.app.key_for("default", KeyRole::Admin).await;
        let post = async |path: &str, body: Value| -> Value {
            let call = self.app.http.post(self.app.url(path)).json(&body);
            let answer = call.bearer_auth(key.expose()).send().await.unwrap();
            assert_eq!(answer.status(), 201, "{path}");
            answer.json().await.unwrap()
        };
        let agent = post("/api/agents", json!({"name": "house", "type": "claude"})).await;
        let skill = json!({"name": "House Greetings", "description": DESCRIPTION,
            "instructions": "Greet in lower case."});
        post(&format!("/api/agents/{}/skills", agent["id"]), skill).await;
        let taken = json!({"skillSlug": "house-greetings"});
        post("/api/skill-assignments/tenant", taken).await;
    }
}

#[tokio::test]
async fn skills_reach_claude_and_codex_and_stay_out_of_repository_and_session() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1\n")]).await.unwrap();
    let untold = world.on_repository("app", "codex", "[[text]] before");
    world.run(untold).await;
    let is_told = |world: &World| {
        let last = world.model.messages().pop().unwrap();
        last.body.to_string().contains(DESCRIPTION)
    };
    assert!(!is_told(&world), "nothing is taken yet");
    world.take_skill().await;
    for agent in ["claude", "codex"] {
        let request = world.on_repository("app", agent, "[[write]] hello");
        let (submitted, events) = world.run(request).await;
        let end = event(&events, "completed");
        assert!(is_told(&world), "{agent} does not know of the skill");
        let tree = world.git.tree("app", end["branch"].as_str().unwrap());
        assert_eq!(
            tree.await.unwrap(),
            ["100644 a", "100644 hello.txt"],
            "{agent}"
        );
        let look = json!({"websiteSessionId": submitted.session, "autoCommit": false,
            "codingAssistantProvider": "shell",
            "userRequest": "find ~ | grep -i skills; echo looked"});
        let (_, events) = world.run(look).await;
        assert_eq!(said(&events), ["looked"], "{agent}");
    }
}
