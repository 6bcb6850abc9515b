//! Workspaces: the tenants. For now one is made at first start.

pub mod store;
