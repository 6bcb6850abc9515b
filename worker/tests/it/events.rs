//! Events of a whole run: redacted, bounded, numbered without gaps, told once.

use clawlink_shared::execution::Outcome;
use clawlink_shared::secret::Secret;

use crate::dispatcher::{Dispatcher, LEASE_TOKEN, POOL_TOKEN, assignment};
use crate::worker_process::Machine;

#[tokio::test]
async fn no_secret_leaves_the_worker() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let mut nosy = assignment(
        "echo sk-ant-secret-0001; printf ghp_secret; echo _0002; \
         echo -n sk-ant-secret-0001 | base64; printf 'fail with sk-ant-secret-0001\\n' >&2; exit 3",
    );
    nosy.credentials.agent = Some(Secret::new("sk-ant-secret-0001"));
    nosy.credentials.git_token = Some(Secret::new("ghp_secret_0002"));
    dispatcher.put(nosy);
    let (code, log) = machine.start(&dispatcher).ended().await;
    assert_eq!(code, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Failed);
    let mut all = serde_json::to_string(&told.completes[0]).unwrap() + &log;
    for event in told.events.values() {
        all.push_str(event.fields.get());
    }
    assert!(all.contains("***"));
    for secret in [
        "sk-ant-secret-0001",
        "ghp_secret_0002",
        "c2stYW50LXNlY3JldC0wMDAx",
        LEASE_TOKEN,
        POOL_TOKEN,
    ] {
        assert!(!all.contains(secret), "{secret} left");
    }
}

#[tokio::test]
async fn a_flood_arrives_whole_in_order_and_once() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.submit("seq 20000");
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    let lines: Vec<_> = (1..=20_000).map(|i| i.to_string()).collect();
    assert_eq!(told.text(), lines.join("\n"));
    assert!(
        told.count("events") < 4000,
        "{} batches",
        told.count("events")
    );
}

#[tokio::test]
async fn a_huge_line_is_cut_and_says_so() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.submit("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after");
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    let cut = told
        .events
        .values()
        .filter(|event| event.fields.get().contains(r#""truncated":true"#));
    assert_eq!(cut.count(), 2);
    assert!(told.text().ends_with("after"));
}

#[tokio::test]
async fn a_refused_event_is_replaced_by_one_that_says_so() {
    refused_events_are_replaced(true).await;
}

#[tokio::test]
async fn a_refusal_that_names_no_event_is_narrowed_down() {
    refused_events_are_replaced(false).await;
}

async fn refused_events_are_replaced(is_named: bool) {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.told().refuse = Some(("agent_text", is_named));
    dispatcher.submit("seq 20");
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Completed);
    let said = told
        .events
        .values()
        .filter(|event| event.fields.get().contains("was left out"));
    assert_eq!(said.count(), 20);
    assert!(!told.types().contains(&"agent_text"));
}
