//! Agents that give a secret to git, which compresses it: no object of the archive holds it, and
//! the session goes on, commits and pushes.

use serde_json::json;

use super::search::assert_absent;
use super::secrets::API_KEY;
use super::world::{World, event, said};

/// Commits something that is fine, then hides what `$a$b` is.
const FINE: &str = "g() { git -c user.name=x -c user.email=x@x \"$@\"; }
echo fine > fine.txt; g add .; g commit -qm fine
leak() { printf '%s%s' \"$a\" \"$b\"; }";

#[tokio::test]
async fn a_script_that_gives_the_token_to_git_leaves_it_in_no_object_of_the_archive() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    for (hiding, named, is_pushed) in [
        (
            "leak > work.txt; g add .; g commit -qm leak",
            "work.txt",
            false,
        ),
        (
            "mkdir d; leak | base64 > d/work.txt; g add .; g commit -qm leak",
            "d/work.txt",
            false,
        ),
        (
            "leak > work.txt; g add .; g commit -qm leak; echo 2 > two.txt; g add .; g commit -qm two; g gc -q --prune=now",
            "work.txt",
            false,
        ),
        (
            "g commit -q --allow-empty -m \"see $(leak)\"",
            "the message of commit",
            false,
        ),
        ("leak > fine.txt; g stash -q", "fine.txt", true),
        (
            "leak > work.txt; g add .; g commit -qm leak; g rm -q work.txt; g commit -q --amend --allow-empty -m later",
            "work.txt",
            true,
        ),
    ] {
        let script = format!("{FINE}\n{hiding}");
        let (submitted, events) = world.run_and_search(world.knowing(&script), API_KEY).await;
        let told = events.iter().filter_map(|event| event["message"].as_str());
        let told: Vec<&str> = told.filter(|text| text.contains("git history")).collect();
        assert!(
            told.len() == 1 && told[0].contains(named),
            "{hiding}: {told:?}"
        );
        let end = events.last().unwrap();
        let wanted = if is_pushed { "completed" } else { "error" };
        assert_eq!(end["type"], wanted, "{hiding}: {end}");

        let script = "git fsck --full 2>&1; git log --format=%s -1; cat fine.txt; rm -f work.txt d/work.txt; echo on > on.txt
                      git -c user.name=x -c user.email=x@x commit -q --allow-empty -m on";
        let next = json!({"websiteSessionId": submitted.session, "userRequest": script,
            "github": {"repoUrl": world.git.url("app"), "accessToken": world.git.token()}});
        let (_, events) = world.run_and_search(next, API_KEY).await;
        let end = event(&events, "completed");
        let said = said(&events);
        assert!(
            said.contains(&"fine") && !said.iter().any(|line| line.contains("missing")),
            "{hiding}: {said:?}"
        );
        let branch = end["branch"].as_str().unwrap();
        let tree = world.git.tree("app", branch).await.unwrap();
        assert!(
            tree.contains(&"100644 fine.txt".to_owned()),
            "{hiding}: {tree:?}"
        );
        assert!(
            tree.contains(&"100644 on.txt".to_owned()),
            "{hiding}: {tree:?}"
        );
    }
    assert_absent(&world.everything().await, &[&world.git.token()]);
}
