//! The session root and the repository in it.
//!
//! ```text
//! <root>/session-{uuid}/work   the working tree, or the clone
//! <root>/session-{uuid}/home   the agent's HOME: its own state travels with the session
//! <root>/session-{uuid}/tmp    scratch, never archived
//! ```

pub mod git;
pub mod root;
