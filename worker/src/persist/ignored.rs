//! Which files of a working tree git ignores, decided without letting git look: the rules
//! files and the index lie in a hostile tree, so they are opened as [`super::read`] does,
//! bounded, and no configuration is read at all (`core.excludesFile`, `core.worktree`).
//!
//! Where the answer is unclear (an unreadable index, a submodule whose `.git` is a file)
//! nothing is ignored: a file too many costs bytes, a missing one looks deleted.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::Index;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::read::{open_directory, open_file, read_small};

/// Largest rules file that is obeyed, in bytes.
const MAX_RULES_BYTES: u64 = 256 * 1024;

/// Most rules files that are obeyed below one another, in bytes together.
const MAX_TOTAL_RULES_BYTES: usize = 4 * 1024 * 1024;

/// Largest index that is read, in bytes: some half a million tracked files.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// The repositories and rules that apply at the place where the walk is.
#[derive(Default)]
pub(super) struct Ignored {
    repositories: Vec<Repository>,
    entered: Vec<Entered>,
    rules_bytes: usize,
}

/// What one directory added.
struct Entered {
    repository: bool,
    rules: bool,
}

struct Repository {
    /// Length of the working tree's path, with its `/`.
    base: usize,
    /// Absent: unknown, so everything counts as tracked.
    tracked: Option<Tracked>,
    rules: Vec<Rules>,
}

enum Tracked {
    /// There is no index yet.
    Nothing,
    Index(Box<Index>),
}

struct Rules {
    /// Length of the path of the directory that they apply to, with its `/`.
    base: usize,
    matcher: Gitignore,
}

impl Ignored {
    /// Enters a directory, given with its path and a trailing `/`. Answers whether it is the
    /// top of a repository.
    pub(super) fn enter(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> bool {
        let repository = self.enter_repository(directory, path);
        let mut rules = false;
        if let Some(inner) = self.repositories.last_mut()
            && inner.tracked.is_some()
            && let Some(text) = read_small(directory, b".gitignore", MAX_RULES_BYTES)
        {
            self.rules_bytes += text.len();
            if self.rules_bytes <= MAX_TOTAL_RULES_BYTES {
                inner.rules.extend(Rules::parse(&text, path.len()));
                rules = inner
                    .rules
                    .last()
                    .is_some_and(|last| last.base == path.len());
            }
        }
        self.entered.push(Entered { repository, rules });
        repository
    }

    /// Leaves the directory that was entered last.
    pub(super) fn leave(&mut self) {
        match self.entered.pop() {
            Some(Entered {
                repository: true, ..
            }) => {
                self.repositories.pop();
            }
            Some(Entered { rules: true, .. }) => {
                if let Some(inner) = self.repositories.last_mut() {
                    inner.rules.pop();
                }
            }
            _ => {}
        }
    }

    /// Whether a rule matches, without regard to the index.
    pub(super) fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        let Some(inner) = self.repositories.last() else {
            return false;
        };
        for rules in inner.rules.iter().rev() {
            let below = Path::new(OsStr::from_bytes(&path[rules.base..]));
            match rules.matcher.matched(below, is_directory) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }

    /// Whether git has this file, or something below this directory.
    pub(super) fn is_tracked(&self, path: &[u8], is_directory: bool) -> bool {
        let Some(inner) = self.repositories.last() else {
            return false;
        };
        let below = &path[inner.base..];
        match &inner.tracked {
            None => true,
            Some(Tracked::Nothing) => false,
            Some(Tracked::Index(index)) => {
                has(index, below) || (is_directory && starts(index, below))
            }
        }
    }

    fn enter_repository(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> bool {
        let (tracked, rules) = match open_directory(directory, b".git") {
            Ok(git) => (
                read_index(git.as_fd()),
                exclude_file(git.as_fd(), path.len()),
            ),
            Err(_) if exists(directory, c".git") => (None, None),
            Err(_) => return false,
        };
        self.repositories.push(Repository {
            base: path.len(),
            tracked,
            rules: rules.into_iter().collect(),
        });
        true
    }
}

impl Rules {
    /// Reads rules; none if they cannot be compiled within the matcher's own bounds.
    fn parse(text: &[u8], base: usize) -> Option<Self> {
        let mut builder = GitignoreBuilder::new(".");
        for line in String::from_utf8_lossy(text).lines() {
            // A line that is no pattern matches nothing, as in git.
            let _no_pattern = builder.add_line(None, line);
        }
        let matcher = builder.build().ok()?;
        Some(Self { base, matcher })
    }
}

/// The rules in `.git/info/exclude`.
fn exclude_file(git: BorrowedFd<'_>, base: usize) -> Option<Rules> {
    let info = open_directory(git, b"info").ok()?;
    Rules::parse(&read_small(&info, b"exclude", MAX_RULES_BYTES)?, base)
}

/// The index, if it is absent or can be read.
fn read_index(git: BorrowedFd<'_>) -> Option<Tracked> {
    let (file, stat) = match open_file(git, b"index") {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return Some(Tracked::Nothing),
        Err(_) => return None,
    };
    if u64::try_from(stat.st_size).ok()? > MAX_INDEX_BYTES {
        return None;
    }
    // By descriptor: the name may stand for something else by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Index::open(&path)
        .ok()
        .map(|index| Tracked::Index(Box::new(index)))
}

/// Whether exactly this path is in the index, in any stage.
fn has(index: &Index, path: &[u8]) -> bool {
    // Of all paths with a prefix, the prefix itself sorts first.
    first(index, path).is_some_and(|found| found == path)
}

/// Whether anything below this directory is in the index.
fn starts(index: &Index, directory: &[u8]) -> bool {
    first(index, &[directory, b"/"].concat()).is_some()
}

fn first(index: &Index, prefix: &[u8]) -> Option<Vec<u8>> {
    let position = index.find_prefix(prefix).ok()?;
    Some(index.get(position)?.path)
}

fn exists(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
