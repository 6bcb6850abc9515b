//! The dispatcher's tests: one binary, one module per feature.

mod app;
mod health;
mod tidy;
mod up;
