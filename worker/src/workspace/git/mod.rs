//! Git: clone, branch, commit, push, over a smart-HTTP transport of our own.
//!
//! libgit2 reads and writes objects; the wire protocol is spoken here, so that no repository
//! configuration (`insteadOf`, proxies, helpers, push URLs) can decide where a token goes.
//! The only address ever dialled is the one of the stored request, after its checks.
//!
//! After an agent has run, `.git` is hostile: it is never opened as a repository. `dotgit`
//! reads the few facts needed from it and works in a throw-away repository of our own.
//!
//! All functions block; call them from `spawn_blocking`.

pub(crate) mod address;
mod branch;
mod catch_up;
mod clean;
mod clone;
mod commit;
mod dotgit;
mod history;
mod http;
mod lfs;
mod pkt;
mod push;
mod stage;
mod submodules;
mod tree;

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;

pub use address::is_public;
pub use branch::{start_branch, working_directory};
pub use catch_up::{CatchUpRequest, SESSION_TRAILER, catch_up};
pub use clean::{Before, CleanRequest, clean, remember};
pub use clone::{CloneRequest, Cloned, clone};
pub use commit::{CommitOutcome, CommitRequest, commit_all};
pub use http::GitAccess;
pub use push::{PushRequest, Pushed, push};
pub use submodules::{Submodules, SubmodulesRequest, deliver_submodules, may_have_submodules};

/// What a long transfer has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A line of the git host or of ours.
    Message(String),
    /// How far the transfer is.
    Objects {
        /// Objects received so far.
        received: usize,
        /// Objects announced.
        total: usize,
        /// Bytes received so far.
        bytes: u64,
    },
}

/// The longest piece of a host's own words that is passed on, in bytes.
const MAX_HOST_WORDS: usize = 2048;

/// Most paths that a note names.
const MAX_NAMED: usize = 10;

/// The first few paths.
fn list(paths: &[String]) -> String {
    let more = paths.len().saturating_sub(MAX_NAMED);
    let named = paths[..paths.len() - more].join(", ");
    match more {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// A failure that only a defect, a broken disk or a broken connection explains.
fn broken(action: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::InternalError, format!("{action}: {error}"))
}

/// What is reported when the cancellation token stopped the work.
fn stopped() -> Failure {
    Failure::new(ErrorCode::Interrupted, "stopped on request")
}

/// Text from outside, bounded, on one line for each of its own, without control characters.
fn host_words(text: &str) -> String {
    let clean: String = text
        .trim()
        .chars()
        .map(|c| if c == '\r' { '\n' } else { c })
        .filter(|c| *c == '\n' || !c.is_control())
        .collect();
    let mut end = clean.len().min(MAX_HOST_WORDS);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean[..end].to_owned()
}
