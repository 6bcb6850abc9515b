//! What this replica saw last of executions: of those that it accepted, until they are claimed,
//! and of those whose workers speak to it.
//!
//! A worker makes its calls one after the other, mostly to one replica, and every change
//! compares what it began from with what is there. So it may begin from what the call before
//! left, without a look at Postgres. Nothing else follows from what is remembered: whatever is
//! not the next plain step, a refusal above all, is looked up.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clawlink_shared::id::ExecutionId;
use sqlx::PgConnection;

use super::{lease_lost, restless};
use crate::app::App;
use crate::error::ApiResult;
use crate::executions::store::events::LockedLog;
use crate::executions::store::locked::{self, Locked};

/// Executions that are remembered; then all are forgotten, which costs each of them one look.
const MOST: usize = 4096;
/// How often a call looks again at an execution that changed between being read and being
/// written. Only its one worker, cancels and wait reasons change it, so that once is rare.
const MAX_LOOKS: usize = 16;

/// What was accepted longer ago may have been told why it waits; then it is read.
const FRESH: Duration = Duration::from_secs(1);

/// Executions by their number.
#[derive(Debug, Default)]
pub struct Recent {
    accepted: Memory<LockedLog>,
    held: Memory<([u8; 32], Locked)>,
}

impl Recent {
    /// Remembers an execution that was just accepted: nobody has claimed it yet.
    pub(in crate::executions) fn accepted(&self, log: LockedLog) {
        self.accepted.put(log.execution, log);
    }

    /// Takes out one that was accepted a moment ago.
    pub(super) fn take_accepted(&self, execution: ExecutionId) -> Option<LockedLog> {
        let (log, age) = self.accepted.take(execution)?;
        (age < FRESH).then_some(log)
    }

    /// Remembers an execution as a committed call of this lease left it.
    pub(super) fn put(&self, lease: &[u8; 32], held: Locked) {
        self.held.put(held.log.execution, (*lease, held));
    }

    /// Takes out what was put for this lease, with its clock moved on.
    fn take(&self, execution: ExecutionId, lease: &[u8; 32]) -> Option<Locked> {
        let ((of, mut held), age) = self.held.take(execution)?;
        held.now += age;
        (of == *lease).then_some(held)
    }
}

/// A bounded memory of what was put when.
#[derive(Debug)]
struct Memory<T>(Mutex<HashMap<ExecutionId, (Instant, T)>>);

impl<T> Memory<T> {
    fn put(&self, execution: ExecutionId, value: T) {
        let mut all = self.lock();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(execution, (Instant::now(), value));
    }

    fn take(&self, execution: ExecutionId) -> Option<(T, Duration)> {
        let (at, value) = self.lock().remove(&execution)?;
        Some((value, at.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, (Instant, T)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// An execution as one call of its worker sees it, again and again until it can act on it.
pub(super) struct Looks<'a> {
    app: &'a App,
    id: ExecutionId,
    lease: &'a [u8; 32],
    remembered: Option<Locked>,
    left: usize,
    /// When what the call goes by was taken out or read.
    at: Instant,
}

impl<'a> Looks<'a> {
    /// The looks of one call.
    pub(super) fn of(app: &'a App, id: ExecutionId, lease: &'a [u8; 32]) -> Self {
        Self {
            app,
            id,
            lease,
            remembered: app.recent.take(id, lease),
            left: MAX_LOOKS,
            at: Instant::now(),
        }
    }

    /// What is remembered, if the call's step is a plain one from there; else, and from the
    /// second time on, what Postgres says.
    pub(super) async fn next(
        &mut self,
        db: &mut PgConnection,
        is_plain: impl Fn(&Locked) -> bool,
    ) -> ApiResult<Locked> {
        if let Some(held) = self.remembered.take().filter(is_plain) {
            return Ok(held);
        }
        self.left = self.left.checked_sub(1).ok_or_else(restless)?;
        let held = locked::look(db, self.id, self.lease).await?;
        self.at = Instant::now();
        held.ok_or_else(lease_lost)
    }

    /// Whether the call goes by what Postgres says. By what is remembered nothing is refused.
    pub(super) fn are_sure(&self) -> bool {
        self.left < MAX_LOOKS
    }

    /// Remembers how the call left the execution.
    pub(super) fn keep(&self, mut held: Locked) {
        held.now += self.at.elapsed();
        self.app.recent.put(self.lease, held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executions::store::locked::any_held;

    #[test]
    fn only_the_lease_that_left_it_begins_from_it_and_once() {
        let recent = Recent::default();
        let held = any_held(ExecutionId(1));
        let then = held.now;
        recent.put(&[1; 32], held.clone());
        let taken = recent.take(ExecutionId(1), &[1; 32]).expect("it was put");
        assert!(taken.now >= then);
        assert!(recent.take(ExecutionId(1), &[1; 32]).is_none());
        recent.put(&[1; 32], held);
        assert!(recent.take(ExecutionId(1), &[2; 32]).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let recent = Recent::default();
        for number in 0..2 * MOST as i64 {
            recent.put(&[1; 32], any_held(ExecutionId(number)));
        }
        assert!(recent.held.lock().len() <= MOST);
    }
}
