//! Agents that print what they were given, in pieces and disguised: it is nowhere afterwards.

use serde_json::{Value, json};

use super::search::assert_absent;
use super::world::{Submitted, World, event, said};
use crate::app::POOL_TOKEN;

/// With characters that JSON, URLs and base64 spell differently.
pub(super) const API_KEY: &str = "sk-ant-api03-canary/in+the&coal=mine%25?";

/// Prints what `$a$b` is, without either this text or a line of its own holding it.
const PRINT: &str = r#"
env; cat /proc/self/environ | tr '\0' '\n'; cat /proc/$PPID/environ
ls -l /proc/self/fd; cat .git/config .git/FETCH_HEAD .git/packed-refs; git remote -v
find "$HOME" "$TMPDIR" .. -type f -size -64k -exec cat {} + 2>/dev/null | grep -a token-
printf '%s' "$a"; printf '%s\n' "$b"
printf '%s' "$a" >&2; printf '%s\n' "$b" >&2
(printf '%s' "$a"; printf '%s' "$b") | fold -w 3 | while read -r piece; do printf '%s' "$piece"; done; echo
for before in '' x xy; do printf '%s%s%s, and more' "$before" "$a" "$b" | base64 -w0; echo; done
printf '{"inside": "%s%s"}\n' "$a" "$b"
printf 'https://user:%s%s@example.com/path?token=%s%s\n' "$a" "$b" "$a" "$b"
printf '%s%s' "$a" "$b"
"#;

impl World {
    /// Runs a request; then no secret, that of the model among them, is in what is kept, was published, logged or streamed.
    pub(super) async fn run_and_search(
        &self,
        body: Value,
        key_of_model: &str,
    ) -> (Submitted, Vec<Value>) {
        let overheard = self.overhear().await;
        let mut worker = self.worker();
        let submitted = self.submit(body).await;
        let events = self.events(submitted.execution).await;
        assert_eq!(worker.ended().await, Some(0));
        let mut hay = self.everything().await;
        hay.push(("the stream".into(), serde_json::to_vec(&events).unwrap()));
        hay.push(("the worker's log".into(), worker.log().into_bytes()));
        let session = format!("/sessions/{}", submitted.session);
        for path in [format!("/executions/{}", submitted.execution), session] {
            let answer = self.app.get(&path).send().await.unwrap();
            hay.push((path, answer.bytes().await.unwrap().to_vec()));
        }
        hay.extend(overheard.stop().await);
        let token = self.git.token();
        let key = self.app.key.expose();
        assert_absent(&hay, &[&token, key_of_model, POOL_TOKEN, key]);
        (submitted, events)
    }

    /// A script that knows the git token as `$a$b`.
    pub(super) fn knowing(&self, script: &str) -> Value {
        let token = self.git.token();
        let (a, b) = token.split_at(token.len() / 2);
        let script = format!("a='{a}'\nb='{b}'\n{script}");
        let mut request = self.on_repository("app", "shell", &script);
        request["codingAssistantAuthentication"] = json!(API_KEY);
        request
    }
}

#[tokio::test]
async fn a_script_that_prints_the_token_in_pieces() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    let request = world.knowing(&format!("{PRINT}\necho fine > fine.txt"));
    let (_, events) = world.run_and_search(request, API_KEY).await;
    let said = said(&events);
    assert!(said.contains(&r#"{"inside": "***"}"#), "{said:#?}");
    assert!(
        said.iter().filter(|line| line.contains("***")).count() >= 8,
        "{said:#?}"
    );
    let branch = event(&events, "completed")["branch"].as_str().unwrap();
    let tree = world.git.tree("app", branch).await.unwrap();
    assert!(tree.contains(&"100644 fine.txt".to_owned()), "{tree:?}");
}

#[tokio::test]
async fn a_script_gets_no_credential_of_ours() {
    let world = World::start().await;
    let script = "compgen -e | sort | tr '\\n' ' '; echo; cat /proc/$PPID/environ 2>&1";
    let request = json!({
        "codingAssistantProvider": "shell", "codingAssistantAuthentication": API_KEY,
        "userRequest": script, "providerOptions": {"env": {"GIVEN": "1"}},
    });
    let (_, events) = world.run_and_search(request, API_KEY).await;
    let said = said(&events);
    assert_eq!(
        said[0].trim_end(),
        "ANTHROPIC_BASE_URL GIVEN HOME LANG OPENAI_BASE_URL PATH PWD SHLVL TMPDIR"
    );
    assert!(said[1].ends_with("Permission denied"), "{said:#?}");
}

#[tokio::test]
async fn a_script_that_hides_the_token_in_files_names_and_commits() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    for (hiding, named) in [
        (r#"printf '%s%s' "$a" "$b" > work.txt"#, "work.txt"),
        (r#"touch "$a$b""#, "the name of a file"),
        (
            r#"git -c user.name=x -c user.email=x@x commit -q --allow-empty -m "see $a$b""#,
            "the message",
        ),
        (
            r#"mkdir d; printf '%s%s' "$a" "$b" | base64 > d/work.txt"#,
            "d/work.txt",
        ),
        (
            r#"printf 'x%s%s' "$a" "$b" | base64 -w0 > shifted.txt"#,
            "shifted.txt",
        ),
        (
            r#"ln -s "$a$b" link; mkdir "dir$a$b"; touch "dir$a$b/file""#,
            "",
        ),
        // Gone from the tree, and still in what would be pushed.
        (
            r#"g() { git -c user.name=x -c user.email=x@x "$@"; }
               printf '%s%s' "$a" "$b" > gone.txt; g add gone.txt; g commit -qm one; g rm -q gone.txt; g commit -qm two"#,
            "gone.txt",
        ),
    ] {
        let script = format!(
            "{hiding}; mkdir -p ~/.claude/projects; echo \"$a$b\" > ~/.claude/projects/x.jsonl; echo kept > other.txt"
        );
        let (submitted, events) = world.run_and_search(world.knowing(&script), API_KEY).await;
        let end = event(&events, "error");
        assert_eq!(end["code"], "push_failed", "{hiding}");
        let words = end["error"].as_str().unwrap();
        assert!(words.contains(named), "{hiding}: {words}");
        let next = json!({"websiteSessionId": submitted.session, "autoCommit": false, "userRequest": "cat other.txt"});
        let (_, events) = world.run(next).await;
        assert_eq!(said(&events), ["kept"], "{hiding}");
    }
    assert_eq!(world.git.branches("app").await.unwrap(), ["main"]);
}

#[tokio::test]
async fn a_model_that_says_the_api_key_three_characters_at_a_time() {
    let world = World::start().await;
    let request = json!({
        "codingAssistantProvider": "claude", "codingAssistantAuthentication": API_KEY,
        "userRequest": "[[key]] say it",
    });
    let (_, events) = world.run_and_search(request, API_KEY).await;
    let call = world.model.messages().pop().expect("a call of the model");
    assert_eq!(
        call.headers.get("x-api-key").map(String::as_str),
        Some(API_KEY)
    );
    let whole: String = said(&events).concat();
    assert!(whole.contains("***"), "{events:#?}");
    let result = event(&events, "completed")["result"].as_str().unwrap();
    assert_eq!(result, "***");
}

#[tokio::test]
async fn a_claude_whose_tools_print_and_store_the_api_key() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    let steal = "[[bash:env; env | base64 -w0; cat /proc/self/environ /proc/$PPID/environ | tr '\\0' '\\n'; \
                 cat ~/.claude.json ~/.claude/*.json; echo \"$ANTHROPIC_API_KEY\" > ~/kept; echo done > fine.txt]]";
    let mut request = world.on_repository("app", "claude", steal);
    request["codingAssistantAuthentication"] = json!(API_KEY);
    let (submitted, events) = world.run_and_search(request, API_KEY).await;
    let tool = event(&events, "agent_tool_result");
    assert!(
        tool["output"].to_string().contains("PATH="),
        "the tool ran: {tool}"
    );
    event(&events, "completed");

    let next = json!({
        "websiteSessionId": submitted.session, "userRequest": "[[text]] go on",
        "codingAssistantAuthentication": API_KEY, "autoCommit": false,
    });
    let (_, events) = world.run_and_search(next, API_KEY).await;
    let result = event(&events, "completed")["result"].as_str().unwrap();
    assert!(result.contains("2 marked user turns"), "{result}");
}
