//! Executions in Postgres. Every change of state is guarded by the expected previous state;
//! every worker's write shows its lease.

pub(crate) mod accept;
pub mod events;
pub(crate) mod idempotency;
pub(crate) mod read;
