//! Agents that misbehave: odd output, odd files, processes that stay, a disk without room.
//! Every run ends as it should, the session is saved, and nothing is left behind.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clawlink::up::identity::Identity;
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::{World, event, furnished, outline, said};
use crate::app::scratch;

/// Longer than a line may be.
const LINE_BYTES: usize = 100 << 20;

fn script(text: &str) -> Value {
    json!({"codingAssistantProvider": "shell", "userRequest": text})
}

/// Processes with this word on their command line.
fn marked(mark: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains(mark))
        .collect()
}

#[tokio::test]
async fn output_that_is_not_text_stays_a_valid_stream() {
    let world = World::start().await;
    let text = format!(
        r#"printf 'nul \0 lone \xed\xa0\x80 bad \xff\xfe half \xf0\x9f\n'
printf '\x1b[2J\r\b\x07 "quoted" \\ud800 \\u0000\n'
printf '\xe2\x80\xa8 separators \xc2\x85\n' >&2
head -c {LINE_BYTES} /dev/zero | tr '\0' x; echo
head -c 300000 /dev/zero; echo
head -c 1000 /dev/urandom; echo
echo after; printf 'no newline'"#
    );
    let (_, events) = world.run(script(&text)).await;
    let said = said(&events);
    let begins = |text: &str| said.iter().any(|line| line.starts_with(text));
    assert!(begins("nul \0 lone \u{fffd}") && begins("\u{2028} separators"));
    assert!(said.contains(&"after"));
    assert!(said.contains(&"no newline"));
    assert!(said.iter().all(|line| line.len() < 300_000));
    let told = events.iter().filter(|event| event["type"] == "message");
    let told: String = told.map(|event| event["message"].to_string()).collect();
    assert!(told.contains("line"), "what was cut is said: {told}");
    event(&events, "completed");
}

#[tokio::test]
async fn a_flood_of_lines_arrives_whole() {
    let world = World::start().await;
    let text = "seq 1 20000; seq 20001 20010 >&2";
    let (_, events) = world.run(script(text)).await;
    let numbers: Vec<u32> = said(&events)
        .iter()
        .filter_map(|line| line.parse().ok())
        .filter(|number| *number <= 20_000)
        .collect();
    assert!(
        numbers.iter().copied().eq(1..=20_000),
        "{} lines",
        numbers.len()
    );
    event(&events, "completed");
}

/// Leaves everything that a directory can hold.
const LITTER: &str = r#"
mkdir many && for n in {1..10000}; do : > many/$n; done
truncate -s 20M sparse
perl -e 'for (1..600) { mkdir "d"x10 or die; chdir "d"x10 or last }' || echo shallow
mkdir closed && echo x > closed/file && chmod 000 closed
echo y > secret && chmod 000 secret
mkfifo pipe; mknod null c 1 3 2>/dev/null && echo device
perl -e 'use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("socket")) or die'
ln -s loop loop; ln -s / top; ln -s /etc/passwd users; ln -s ../../.. up
touch -- '-rf' $'new\nline' $'\xff\xfe' ' ' '*'
ln sparse hard
echo littered
"#;

#[tokio::test]
async fn odd_files_neither_stop_the_end_nor_the_next_turn() {
    let world = World::start().await;
    let (submitted, events) = world.run(script(LITTER)).await;
    let said_first = said(&events);
    assert_eq!(said_first.last(), Some(&"littered"), "{said_first:?}");
    assert!(
        !said_first.contains(&"device"),
        "a sandbox makes no devices"
    );
    event(&events, "completed");

    let look = "ls many | wc -l; stat -c %s sparse; cat secret closed/file 2>/dev/null; ls -d users top loop; test -e $'\\xff\\xfe' && echo bytes";
    let next = json!({"websiteSessionId": submitted.session, "userRequest": look});
    let (_, events) = world.run(next).await;
    event(&events, "completed");
    let said = said(&events);
    assert!(said.starts_with(&["10000", "20971520"]), "{said:?}");
    assert!(said.contains(&"bytes"), "{said:?}");
}

#[tokio::test]
async fn odd_files_in_a_repository_do_not_stop_the_push() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    let litter = LITTER.replace("10000", "2000").replace("20M", "5M");
    let request = world.on_repository("app", "shell", &litter);
    let (_, events) = world.run(request).await;
    match events.last() {
        Some(end) if end["type"] == "completed" => {
            let branch = end["branch"].as_str().unwrap();
            let tree = world.git.tree("app", branch).await.unwrap();
            assert!(
                tree.contains(&"120000 users".to_owned()),
                "a link is a link"
            );
            assert!(!tree.iter().any(|line| line.ends_with(" pipe")));
        }
        end => assert_eq!(end.unwrap()["code"], "push_failed", "{events:#?}"),
    }
}

#[tokio::test]
async fn what_an_agent_leaves_running_ends_with_it() {
    let world = World::start().await;
    let mark = format!("mark-{}", Uuid::new_v4());
    let text = format!(
        r#"stay='trap "" TERM HUP INT; echo ready; while :; do sleep 60; done'
setsid bash -c "$stay" {mark} &
( (setsid bash -c "$stay" {mark} < /dev/null &) & )
nohup bash -c "exec -a {mark} sleep 600" > /dev/null 2>&1 &
bash -c 'trap "" TERM; f() {{ sleep 0.01; f & disown; }}; f' {mark} &
sleep 0.3; echo done"#
    );
    let (_, events) = world.run(script(&text)).await;
    assert!(said(&events).contains(&"ready"), "{events:#?}");
    event(&events, "completed");
    assert_eq!(marked(&mark), [""; 0]);
}

#[tokio::test]
async fn an_agent_without_end_is_stopped_in_time_and_saved() {
    let world = World::start().await;
    let mark = format!("mark-{}", Uuid::new_v4());
    let text = format!(
        r#"echo kept > kept.txt
trap '' TERM INT HUP
for n in 1 2 3; do setsid bash -c 'trap "" TERM; while :; do sleep 60; done' {mark} & done
while :; do :; done"#
    );
    let mut request = script(&text);
    request["providerOptions"] = json!({"timeoutSeconds": 2});
    let worker = world.worker();
    let submitted = world.submit(request).await;
    let events = world.events(submitted.execution).await;
    assert_eq!(
        marked(&mark),
        [""; 0],
        "at the end, and not only soon after"
    );
    assert_eq!(event(&events, "error")["code"], "timeout");
    assert_eq!(worker.exit_code().await, Some(0));

    let next = json!({"websiteSessionId": submitted.session, "userRequest": "cat kept.txt"});
    let (_, events) = world.run(next).await;
    assert_eq!(said(&events), ["kept"]);
}

#[tokio::test]
async fn a_session_larger_than_allowed_ends_in_an_error() {
    let world = World::start_with(|settings| settings.tuning.max_session_bytes = 8 << 20).await;
    let text = "for n in {1..20}; do head -c 1M /dev/urandom > $n; done; head -c 20M /dev/zero > one-file; echo filled";
    let (submitted, events) = world.run(script(text)).await;
    let error = event(&events, "error");
    assert_eq!(error["code"], "storage_error", "{error}");
    assert!(said(&events).contains(&"filled"));

    let (_, events) = world.run(script("echo works")).await;
    assert_eq!(outline(&events).last(), Some(&"completed"));
    let next = json!({"websiteSessionId": submitted.session, "userRequest": "ls"});
    let (_, events) = world.run(next).await;
    event(&events, "completed");
}

#[tokio::test]
async fn too_many_files_end_in_an_error() {
    let world = World::start_with(|settings| settings.tuning.max_session_files = 500).await;
    let text = "for n in {1..1000}; do : > $n; done";
    let (_, events) = world.run(script(text)).await;
    assert_eq!(event(&events, "error")["code"], "storage_error");
}

/// A file system of 12 MiB, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// None where mounting is not permitted.
    fn mount(at: &Path) -> Option<Self> {
        let options = "size=12m,mode=711";
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at);
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        is_mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_ends_in_an_error_and_the_next_job_works() {
    let world = World::start().await;
    let disk = scratch();
    let path = disk.path().to_owned();
    let is_root = Identity::current().uid == 0;
    let Some(_small) = is_root.then(|| Small::mount(&path)).flatten() else {
        eprintln!("no file system can be mounted here; the session's bound is tested elsewhere");
        return;
    };
    assert_ne!(
        path.metadata().unwrap().dev(),
        path.parent().unwrap().metadata().unwrap().dev()
    );
    let fill = "cat /dev/urandom > fill; echo lines after; seq 1 8000; exit 7";
    let mut worker = world.worker_on(&world.app.dispatcher.url, furnished(disk));
    let submitted = world.submit(script(fill)).await;
    let events = world.events(submitted.execution).await;
    let error = event(&events, "error");
    assert!(
        ["agent_error", "storage_error"].contains(&error["code"].as_str().unwrap()),
        "{error}"
    );
    assert_eq!(worker.ended().await, Some(0), "{}", worker.log());
    let left = std::fs::read_dir(path.join("workspace")).unwrap().count();
    assert!(left <= 1, "the session is gone from the disk");

    let (_, events) = world.run(script("echo works")).await;
    assert_eq!(said(&events), ["works"]);
}
