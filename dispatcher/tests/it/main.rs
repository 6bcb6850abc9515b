//! The dispatcher's tests: one binary, one module per feature.

mod app;
mod bench;
mod health;
mod jobs;
mod lease;
mod tidy;
mod up;
mod wait;
mod worker;
