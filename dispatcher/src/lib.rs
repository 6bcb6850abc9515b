//! The dispatcher, in the order in which a request passes through it.
//!
//! It is stateless: whatever another replica would miss stands in Postgres, and what stands
//! in Redis can be rebuilt from there. Any replica serves any request, worker call or stream.

pub mod config;
pub mod error;

pub mod http;

pub mod auth;

pub mod agents;
pub mod api_keys;
pub mod approvals;
pub mod audit;
pub mod devices;
pub mod executions;
pub mod feed;
pub mod github;
pub mod idempotency;
pub mod limits;
pub mod messages;
pub mod policies;
pub mod projects;
pub mod runtime;
pub mod sessions;
pub mod tasks;
pub mod usage;
pub mod workspaces;

pub mod app;
pub mod blobs;
pub mod bus;
pub mod db;
pub mod outbox;
pub mod schema;
pub mod secrets;

pub mod autoscale;
pub mod bench;
pub mod objects;
pub mod probe;
pub mod serve;
pub mod up;

/// All migrations, compiled in; applied under a lock by `clawlink migrate` and at start.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
