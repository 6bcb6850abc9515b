//! The ready queue on a real Redis: seeded simulations of its rules. A failure names its seed;
//! `CLAWLINK_TEST_SEED` repeats it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clawlink::bus::Bus;
use clawlink::executions::queue::{self, Entry, Popped, Ready};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::Priority;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use clawlink_shared::secret::Secret;
use clawlink_shared::settings::process_environment;
use clawlink_shared::shutdown::Shutdown;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::app::required;

const SHELL: &[AgentKind] = &[AgentKind::Shell];

/// A queue of its own; its keys go with it.
async fn fresh() -> Bus {
    let url = Secret::new(required("REDIS_URL"));
    let prefix = format!("it_{}:", Uuid::new_v4().simple());
    let bus = Bus::connect(&url, &prefix, Uuid::new_v4(), &Shutdown::new()).unwrap();
    queue::mark(&bus).await.unwrap();
    bus
}

pub(crate) fn seeded() -> (u64, StdRng) {
    let seed = process_environment("CLAWLINK_TEST_SEED").map_or_else(
        || rand::rng().random(),
        |text| text.parse().expect("CLAWLINK_TEST_SEED is a number"),
    );
    eprintln!("CLAWLINK_TEST_SEED={seed}");
    (seed, StdRng::seed_from_u64(seed))
}

fn ready(id: i64, workspace: i64, agent: AgentKind, priority: Priority) -> Ready {
    Ready {
        execution: ExecutionId(id),
        workspace: WorkspaceId(workspace),
        agent,
        priority,
        is_again: false,
        is_parked: false,
    }
}

async fn pop(bus: &Bus, kinds: &[AgentKind]) -> Option<Entry> {
    match queue::pop(bus, kinds).await.unwrap() {
        Popped::Entry(entry) => Some(entry),
        Popped::Empty => None,
        Popped::Lost => panic!("the queue was marked whole"),
    }
}

async fn drain(bus: &Bus, kinds: &[AgentKind]) -> Vec<Entry> {
    let mut order = Vec::new();
    while let Some(entry) = pop(bus, kinds).await {
        order.push(entry);
    }
    order
}

#[tokio::test]
async fn positions_say_exactly_when_an_execution_is_handed_out() {
    let (seed, mut random) = seeded();
    let bus = fresh().await;
    let mut ids = Vec::new();
    for id in 1..=120 {
        let workspace = *[1, 2, 2, 2, 30].choose(&mut random).unwrap();
        let priority = *Priority::ALL.choose(&mut random).unwrap();
        let one = ready(id, workspace, AgentKind::Shell, priority);
        queue::push(&bus, &[one]).await.unwrap();
        ids.push((id, workspace));
        if random.random_bool(0.2)
            && let Some(gone) = pop(&bus, SHELL).await
        {
            ids.retain(|(id, _)| *id != gone.execution.0);
        }
    }
    let mut told = HashMap::new();
    for (id, workspace) in ids {
        let (id, workspace) = (ExecutionId(id), WorkspaceId(workspace));
        let position = queue::position(&bus, Some(id), AgentKind::Shell, workspace);
        told.insert(id, position.await.unwrap());
    }
    for (before, entry) in drain(&bus, SHELL).await.into_iter().enumerate() {
        let told = told[&entry.execution];
        assert_eq!(told, before as u64, "{entry:?}, seed {seed}");
    }
}

#[tokio::test]
async fn workspaces_take_turns_however_many_each_has() {
    let bus = fresh().await;
    let mut all: Vec<Ready> = (1..=300)
        .map(|id| ready(id, 1, AgentKind::Shell, Priority::Critical))
        .collect();
    all.extend((301..=320).map(|id| ready(id, 2, AgentKind::Shell, Priority::Low)));
    queue::push(&bus, &all).await.unwrap();
    for _ in 0..10 {
        pop(&bus, SHELL).await.unwrap();
    }
    // A newcomer is neither owed for its absence nor made to pay.
    let late: Vec<Ready> = (401..=410)
        .map(|id| ready(id, 3, AgentKind::Shell, Priority::Medium))
        .collect();
    queue::push(&bus, &late).await.unwrap();
    let order = drain(&bus, SHELL).await;
    assert_eq!(order.len(), 320);
    for turns in order[..30].chunks(3) {
        let turns: BTreeSet<i64> = turns.iter().map(|entry| entry.workspace.0).collect();
        assert_eq!(turns, BTreeSet::from([1, 2, 3]), "{order:?}");
    }
}

#[tokio::test]
async fn classes_share_a_workspace_by_weight_and_keep_their_own_order() {
    let bus = fresh().await;
    let mut all = Vec::new();
    for priority in Priority::ALL {
        let first = 1000 * i64::from(priority.as_i16());
        all.extend((1..=150).map(|n| ready(first + n, 1, AgentKind::Shell, priority)));
    }
    queue::push(&bus, &all).await.unwrap();
    let order = drain(&bus, SHELL).await;
    let class = |entry: &Entry| entry.execution.0 / 1000;
    let mut turns: BTreeMap<i64, i64> = BTreeMap::new();
    for entry in &order[..150] {
        *turns.entry(class(entry)).or_default() += 1;
    }
    for (class, weight) in [(0, 1), (1, 2), (2, 4), (3, 8)] {
        let fair = 150 * weight / 15;
        assert!((turns[&class] - fair).abs() <= 1, "{turns:?}");
    }
    for wanted in 0..4 {
        let own: Vec<i64> = order
            .iter()
            .filter(|entry| class(entry) == wanted)
            .map(|entry| entry.execution.0)
            .collect();
        assert!(own.is_sorted() && own.len() == 150);
    }
}

#[tokio::test]
async fn what_was_handed_out_before_goes_to_the_front() {
    let bus = fresh().await;
    let all: Vec<Ready> = (1..=5)
        .map(|id| ready(id, 1, AgentKind::Shell, Priority::Low))
        .collect();
    queue::push(&bus, &all).await.unwrap();
    let first = pop(&bus, SHELL).await.unwrap();
    pop(&bus, SHELL).await.unwrap();
    let again = Ready {
        is_again: true,
        ..all[0]
    };
    assert_eq!(queue::push(&bus, &[again]).await.unwrap(), 1);
    let next = pop(&bus, SHELL).await.unwrap();
    assert_eq!(next.execution, first.execution);
}

/// Random pushes, pops, removals, parkings: nothing is lost, doubled, offered to the wrong
/// worker or offered while its workspace is parked.
#[tokio::test]
async fn nothing_is_lost_or_handed_out_twice() {
    let (seed, mut random) = seeded();
    let bus = fresh().await;
    let kinds = AgentKind::ALL;
    let mut queued: BTreeMap<i64, Ready> = BTreeMap::new();
    let mut parked: BTreeSet<i64> = BTreeSet::new();
    let mut last = 0;
    for _ in 0..1500 {
        match random.random_range(0..100) {
            0..45 => {
                let is_new = queued.is_empty() || random.random_bool(0.8);
                let one = if is_new {
                    last += 1;
                    let workspace = random.random_range(1..=6);
                    let kind = *kinds.choose(&mut random).unwrap();
                    let priority = *Priority::ALL.choose(&mut random).unwrap();
                    Ready {
                        is_again: random.random_bool(0.1),
                        is_parked: parked.contains(&workspace),
                        ..ready(last, workspace, kind, priority)
                    }
                } else {
                    let all: Vec<Ready> = queued.values().copied().collect();
                    let one = *all.choose(&mut random).unwrap();
                    let is_parked = parked.contains(&one.workspace.0);
                    Ready { is_parked, ..one }
                };
                let new = queue::push(&bus, &[one]).await.unwrap();
                assert_eq!(new, u64::from(is_new), "seed {seed}");
                queued.insert(one.execution.0, one);
            }
            45..85 => {
                let offered: Vec<AgentKind> = match random.random_range(0..3) {
                    0 => kinds.to_vec(),
                    n => vec![kinds[n - 1]],
                };
                let may_come = |one: &Ready| {
                    offered.contains(&one.agent) && !parked.contains(&one.workspace.0)
                };
                let Some(entry) = pop(&bus, &offered).await else {
                    assert!(!queued.values().any(may_come), "starved, seed {seed}");
                    continue;
                };
                let one = queued.remove(&entry.execution.0);
                let one = one.unwrap_or_else(|| panic!("{entry:?} twice, seed {seed}"));
                assert!(may_come(&one), "{one:?} to {offered:?}, seed {seed}");
                if random.random_bool(0.1) {
                    queue::park(&bus, &entry).await.unwrap();
                    queued.insert(one.execution.0, one);
                    parked.insert(one.workspace.0);
                }
            }
            85..93 => {
                let workspace = random.random_range(1..=6);
                queue::unpark(&bus, WorkspaceId(workspace)).await.unwrap();
                parked.remove(&workspace);
            }
            _ => {
                let id = random.random_range(0..=last);
                queue::remove(&bus, ExecutionId(id)).await.unwrap();
                queued.remove(&id);
            }
        }
    }
    for workspace in 1..=6 {
        queue::unpark(&bus, WorkspaceId(workspace)).await.unwrap();
    }
    let rest = drain(&bus, &kinds).await;
    let rest: Vec<i64> = {
        let mut ids: Vec<i64> = rest.iter().map(|entry| entry.execution.0).collect();
        ids.sort_unstable();
        ids
    };
    let expected: Vec<i64> = queued.keys().copied().collect();
    assert_eq!(rest, expected, "seed {seed}");
}

#[tokio::test]
async fn a_flushed_queue_says_so() {
    let bus = fresh().await;
    let one = ready(1, 1, AgentKind::Shell, Priority::Medium);
    queue::push(&bus, &[one]).await.unwrap();
    let mut redis = bus.redis();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(bus.key("*"))
        .query_async(&mut redis)
        .await
        .unwrap();
    let () = redis::cmd("DEL")
        .arg(keys)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(queue::pop(&bus, SHELL).await.unwrap(), Popped::Lost);
}
