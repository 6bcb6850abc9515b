//! Workspaces, members and invitations in Postgres.

pub(super) mod invitations;
pub(super) mod members;
pub(super) mod memberships;
pub(super) mod workspaces;
