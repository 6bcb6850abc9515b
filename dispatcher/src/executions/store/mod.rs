//! Executions in Postgres. Every change of state is guarded by the expected previous state;
//! every worker's write shows its lease.

pub(crate) mod accept;
pub(crate) mod archive;
pub(crate) mod assignment;
pub(crate) mod cancel;
pub(crate) mod counts;
pub(crate) mod credentials;
pub mod events;
pub(crate) mod finish;
pub(crate) mod idempotency;
pub(crate) mod lease;
pub(crate) mod locked;
pub(crate) mod orders;
pub(crate) mod pending;
pub(crate) mod portal;
pub(crate) mod pulls;
pub(crate) mod read;
pub(crate) mod requeue;
pub(crate) mod spending;
pub(crate) mod uploads;
pub(crate) mod waiting;
