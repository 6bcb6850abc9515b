//! The dispatcher's tests: one binary, one module per feature.

mod app;
mod bench;
mod health;
mod tidy;
mod up;
