//! Workspaces: the tenants, and what a role may do in one.

pub mod role;
mod store;

pub use store::{Membership, by_slug, ensure, join, of_user};
