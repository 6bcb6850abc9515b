//! The worker, in the order in which an execution passes through it: claim, restore or
//! clone, run the agent, commit and push, archive, report, exit.
//!
//! It runs code that a model wrote. It holds no credentials of Postgres, Redis or S3; it only
//! dials out; after the agent has run, everything below the session root is hostile.

pub mod agents;
pub mod client;
pub mod config;
pub mod control;
pub mod events;
pub mod exit;
pub mod lease;
pub mod meter;
pub mod persist;
pub mod proxy;
pub mod push;
pub mod redact;
pub mod report;
pub mod run;
pub mod work;
pub mod workspace;
