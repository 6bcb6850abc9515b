//! tests
mod up;
