//! What the dispatcher and the worker both compile: identifiers, the execution's
//! state machine, the worker API's messages, and the small habits of a process
//! (logging, shutdown).
//!
//! Nothing that only one side needs lives here, and nothing here does I/O beyond
//! reading signals and writing logs.

pub mod agent;
pub mod approval;
pub mod control;
pub mod event;
pub mod execution;
pub mod id;
pub mod network;
pub mod problem;
pub mod prompt;
pub mod secret;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod worker_args;
