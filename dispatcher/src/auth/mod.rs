//! Who calls, and whether they may.

pub mod admit;
pub mod api_key;
pub mod principal;
mod store;
