//! The ready queue in Redis: who is next.
//!
//! It holds what Postgres says is eligible (pending, no earlier open turn in its session) and
//! can be rebuilt from there at any moment; a lost or doubled entry costs time, never a rule,
//! because Postgres confirms each pop. One script (`queue.lua`) does every step atomically.
//!
//! # The order
//!
//! Two levels. *Between workspaces*: each has a virtual time; the one with the least is
//! served, and a turn moves it on by one, whichever agent kind was taken. A workspace that
//! becomes active starts at the global clock (the virtual time of the last turn), so it
//! neither pays for its absence nor is owed for it, and everyone who waits is reached after
//! finitely many turns of the others. *Within a workspace and kind*: each priority class
//! moves its own tag on by 8, 4, 2 or 1 units per entry, and the least tag goes first: a
//! critical entry overtakes, in the ratio of the weights, but a low one keeps its place in
//! time and is reached too. Entries of one class leave in the order in which they came; one
//! that was handed out before goes to the front.
//!
//! A workspace at its running cap is *parked*: its entries keep their order but are offered to
//! nobody until an execution of it ends. So a full workspace costs one refused pop, not many.
//!
//! # The keys, all below `{prefix}q:`
//!
//! - `entries:{kind}:{workspace}` sorted set: execution ids by tag.
//! - `classes:{kind}:{workspace}` hash: last tag of each class, and `clock`, the tag of the
//!   last entry that left; gone when there are no entries.
//! - `active:{kind}` sorted set: workspaces that are offered, by virtual time.
//! - `vtime` hash: virtual time by workspace; at most one field for each.
//! - `clock` string: the global clock.
//! - `members` hash: `kind workspace` by execution id; makes pushing idempotent.
//! - `marker` string: set once everything eligible was pushed; gone after a flush, and then
//!   claims look into Postgres until the reconciler has rebuilt the queue.
//!
//! Costs: pop O(kinds · log n), push O(log n), position O(active workspaces), at most 1000.
//! One Redis, not a cluster: the script computes its keys.

use std::sync::LazyLock;

use clawlink_shared::agent::AgentKind;
use clawlink_shared::execution::Priority;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use redis::{RedisResult, Script, ScriptInvocation};

use crate::bus::Bus;

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("queue.lua")));

/// Entries in one call of the script; more are split.
const PUSH_BATCH: usize = 500;

/// An execution that may be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Which.
    pub execution: ExecutionId,
    /// Whose turn it takes.
    pub workspace: WorkspaceId,
    /// What a worker must offer.
    pub agent: AgentKind,
    /// Its class within the workspace.
    pub priority: Priority,
    /// It was handed out before, so it goes to the front.
    pub is_again: bool,
    /// Its workspace is at the cap: keep it, offer it to nobody yet.
    pub is_parked: bool,
}

/// What a pop found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Popped {
    /// Nothing for these kinds.
    Empty,
    /// The queue was flushed and is not rebuilt yet.
    Lost,
    /// The next execution, to be confirmed by Postgres.
    Entry(Entry),
}

/// A popped entry, with its place in case it must go back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Which.
    pub execution: ExecutionId,
    /// Its kind.
    pub agent: AgentKind,
    /// Its workspace.
    pub workspace: WorkspaceId,
    tag: f64,
}

/// Adds executions that are not there yet; answers how many were new.
pub async fn push(bus: &Bus, ready: &[Ready]) -> RedisResult<u64> {
    let mut new = 0;
    for batch in ready.chunks(PUSH_BATCH) {
        let mut call = step(bus, "push");
        for one in batch {
            call.arg(one.execution.0)
                .arg(one.agent.as_str())
                .arg(one.workspace.0)
                .arg(one.priority.as_i16())
                .arg(u8::from(one.is_again))
                .arg(u8::from(one.is_parked));
        }
        new += call.invoke_async::<u64>(&mut bus.redis()).await?;
    }
    Ok(new)
}

/// Takes the next execution of these kinds.
pub async fn pop(bus: &Bus, kinds: &[AgentKind]) -> RedisResult<Popped> {
    let mut call = step(bus, "pop");
    all_kinds(&mut call).arg("|");
    for kind in kinds {
        call.arg(kind.as_str());
    }
    let answer: Vec<String> = call.invoke_async(&mut bus.redis()).await?;
    Ok(match answer.as_slice() {
        [execution, kind, workspace, tag] => {
            let read = || {
                Some(Entry {
                    execution: execution.parse().ok()?,
                    agent: AgentKind::from_spelling(kind)?,
                    workspace: workspace.parse().ok()?,
                    tag: tag.parse().ok()?,
                })
            };
            read().map_or(Popped::Lost, Popped::Entry)
        }
        [_lost] => Popped::Lost,
        _ => Popped::Empty,
    })
}

/// Puts a popped entry back in its place and offers nothing of its workspace for now.
pub async fn park(bus: &Bus, entry: &Entry) -> RedisResult<()> {
    let mut call = step(bus, "park");
    all_kinds(&mut call)
        .arg("|")
        .arg(entry.execution.0)
        .arg(entry.agent.as_str())
        .arg(entry.workspace.0)
        .arg(entry.tag);
    call.invoke_async(&mut bus.redis()).await
}

/// Offers a workspace's entries again; answers the kinds that have work by it.
pub async fn unpark(bus: &Bus, workspace: WorkspaceId) -> RedisResult<Vec<AgentKind>> {
    let mut call = step(bus, "unpark");
    call.arg(workspace.0);
    let kinds: Vec<String> = all_kinds(&mut call).invoke_async(&mut bus.redis()).await?;
    Ok(kinds
        .iter()
        .filter_map(|kind| AgentKind::from_spelling(kind))
        .collect())
}

/// Takes an execution out; one that is not there is fine.
pub async fn remove(bus: &Bus, execution: ExecutionId) -> RedisResult<()> {
    let mut call = step(bus, "remove");
    call.arg(execution.0).invoke_async(&mut bus.redis()).await
}

/// How many executions will be handed out before this one; before a newcomer if `None` or if
/// it is not queued. Exact while workers offer one kind, an estimate otherwise.
pub async fn position(
    bus: &Bus,
    execution: Option<ExecutionId>,
    agent: AgentKind,
    workspace: WorkspaceId,
) -> RedisResult<u64> {
    let mut call = step(bus, "position");
    call.arg(execution.map_or(0, |id| id.0))
        .arg(agent.as_str())
        .arg(workspace.0);
    call.invoke_async(&mut bus.redis()).await
}

/// Says that everything eligible has been pushed since the last flush.
pub async fn mark(bus: &Bus) -> RedisResult<()> {
    step(bus, "mark").invoke_async(&mut bus.redis()).await
}

fn step(bus: &Bus, name: &str) -> ScriptInvocation<'static> {
    let mut call = SCRIPT.prepare_invoke();
    call.key(bus.key("q:")).arg(name);
    call
}

fn all_kinds<'a, 'b>(call: &'a mut ScriptInvocation<'b>) -> &'a mut ScriptInvocation<'b> {
    for kind in AgentKind::ALL {
        call.arg(kind.as_str());
    }
    call
}
