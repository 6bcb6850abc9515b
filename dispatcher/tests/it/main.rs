//! The dispatcher's tests: one binary, one module per feature.

mod app;
mod bench;
mod cancel;
mod e2e;
mod health;
mod jobs;
mod lease;
mod order;
mod queue;
mod reconcile;
mod sweep;
mod tidy;
mod up;
mod wait;
mod worker;
