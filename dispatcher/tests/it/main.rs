//! The dispatcher's tests: one binary, one module per feature.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test reports; helpers are part of it"
)]

mod access;
mod admin;
mod agents;
mod app;
mod approvals;
mod archive;
mod attempts;
mod audit;
mod bench;
mod boards;
mod cancel;
mod client;
mod contract;
mod db;
mod defects;
mod e2e;
mod edge;
mod execute;
mod feed;
mod github;
mod health;
mod isolation;
mod jobs;
mod large_board;
mod lease;
mod limits;
mod members;
mod messages;
mod observability;
mod oidc;
mod order;
mod people;
mod person;
mod policies;
mod projects;
mod queue;
mod races;
mod reconcile;
mod request;
mod rolling;
mod runtime;
mod schemathesis;
mod secrets;
mod session_limits;
mod sessions;
mod settings;
mod stream;
mod sweep;
mod task_executions;
mod tasks;
mod tenants;
mod tidy;
mod up;
mod upgrade;
mod usage;
mod wait;
mod wire;
mod worker;
mod workspaces;
