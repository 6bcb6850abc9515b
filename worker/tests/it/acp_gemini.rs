//! What is done to gemini's conversations on disk before it is asked for one of them.

use std::path::{Path, PathBuf};

use clawlink_shared::agent::AgentKind;
use clawlink_worker::agents::discover;

use crate::acp_run::{DONE, READY, play};
use crate::agent_job::Session;

const CONVERSATION: &str = "660a8a6c-3fa7-45c1-b27c-3a7de9ea4d05";

/// In the minute in which it began.
const FILE: &str = "session-2026-11-20T22-46-660a8a6c.jsonl";
const KEPT: &str = "session-kept-2026-11-20T22-46-660a8a6c.jsonl";
const OTHER: &str = "session-2026-11-20T22-46-37dab57d.jsonl";

fn chats(session: &Session) -> PathBuf {
    session.home().join(".gemini/tmp/work/chats")
}

fn write(session: &Session, path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    let above = path.ancestors();
    for path in above.take_while(|path| *path != session.home()) {
        session.give(path);
    }
}

/// Names and contents, in the order of names.
fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    files.sort();
    files
}

fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    files.iter().map(owned).collect()
}

async fn go_on(session: &Session) {
    let steps = READY.replace("session/new", "session/load") + DONE;
    let mut run = play(session, "gemini", &steps);
    run.resume = Some(CONVERSATION.into());
    run.finish(AgentKind::Gemini).await;
}

#[tokio::test]
async fn a_conversation_gets_a_name_of_its_own_once() {
    let session = Session::new();
    let chats = chats(&session);
    write(&session, &chats.join(FILE), "said");
    write(&session, &chats.join(OTHER), "other");
    go_on(&session).await;
    assert_eq!(files(&chats), named(&[(OTHER, "other"), (KEPT, "said")]));

    // The agent has begun an empty one, still in the same minute.
    write(&session, &chats.join(FILE), "empty");
    go_on(&session).await;
    let both = [(OTHER, "other"), (FILE, "empty"), (KEPT, "said")];
    assert_eq!(files(&chats), named(&both));

    let settings = session.home().join(".gemini/settings.json");
    let settings = std::fs::read_to_string(settings).unwrap();
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    assert_eq!(settings["general"]["sessionRetention"]["enabled"], false);
}

#[tokio::test]
async fn links_are_not_followed_to_conversations() {
    let session = Session::new();
    let outside = session.outside().join("chats");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join(FILE), "said").unwrap();
    let link = chats(&session);
    write(
        &session,
        &link.with_file_name(".project_root"),
        "/elsewhere",
    );
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    go_on(&session).await;
    assert_eq!(files(&outside), named(&[(FILE, "said")]));
}

#[tokio::test]
async fn a_conversation_moves_with_its_session() {
    let session = Session::new();
    let projects = session.home().join(".gemini/tmp");
    write(
        &session,
        &projects.join("work/.project_root"),
        "/before/session-1/work\n",
    );
    write(
        &session,
        &projects.join("work-1/.project_root"),
        "/before/session-10/work",
    );
    write(
        &session,
        &projects.join("bin/program"),
        "no folder of a project",
    );
    let environment = play(&session, "gemini", "").environment;
    let agent = discover(environment).await.get(AgentKind::Gemini).unwrap();
    agent
        .relocate(Path::new("/before/session-1"), &session.root)
        .unwrap();
    let read = |path: &str| std::fs::read_to_string(projects.join(path)).unwrap();
    assert_eq!(Path::new(&read("work/.project_root")), session.work());
    assert_eq!(read("work-1/.project_root"), "/before/session-10/work");
}
