//! People, sign-ins and keys in Postgres.

pub(super) mod identities;
pub(super) mod keys;
pub(super) mod resets;
pub(super) mod sign_ins;
pub(super) mod users;
