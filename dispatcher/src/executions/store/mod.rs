//! Executions in Postgres. Every change of state is guarded by the expected previous state;
//! every worker's write shows its lease.

pub mod events;
