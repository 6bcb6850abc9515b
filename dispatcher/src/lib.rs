//! placeholder
pub mod up;
