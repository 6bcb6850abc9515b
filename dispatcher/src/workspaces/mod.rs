//! Workspaces: the tenants. For now one is made at first start.

mod store;

pub use store::ensure;
