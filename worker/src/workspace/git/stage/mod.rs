//! The working tree as a git tree.
//!
//! A walk of our own, because the tree is hostile: links are committed as links and never
//! followed, pipes and sockets are passed over, a nested repository's `.git` is never looked
//! into, and rules files that are not plain files are refused before libgit2 reads them.

mod pointers;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use git2::{Index, IndexEntry, IndexTime, ObjectType, Oid, Repository};

use self::pointers::Waiting;
use super::dotgit::Scratch;
use super::submodules::Links;
use super::{lfs, list, tree};
use crate::redact::Redactor;

pub(super) use self::pointers::Upload;

/// Most entries of a working tree that are looked at.
const MAX_ENTRIES: usize = 2_000_000;

/// Largest `.gitignore` or `.gitattributes`, in bytes.
const MAX_RULES: u64 = 1024 * 1024;

pub(super) const LINK: u32 = 0o120_000;
pub(super) const SUBMODULE: u32 = 0o160_000;
const PLAIN: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;

/// The working tree, written as objects.
pub(super) struct Staged {
    /// Its root.
    pub(super) tree: Oid,
    /// What was left out, and why.
    pub(super) notes: Vec<String>,
}

/// Writes the working tree into the scratch repository; `parent` is the commit that it will
/// follow. Content with a secret that `redactor` knows is not uploaded. Submodules become what
/// `links` says; others stay as the remote knows them, for nobody else may have what an agent
/// made of them.
pub(super) fn stage(
    scratch: &Scratch,
    parent: Option<Oid>,
    redactor: &Redactor,
    links: &Links,
    upload: Upload<'_>,
) -> Result<Staged> {
    let before = parent
        .map(|commit| entries_of(&scratch.repo, commit))
        .transpose()?
        .unwrap_or_default();
    let tracked = tracked(scratch, &before)?;
    let mut index = scratch.repo.index().context("open the index")?;
    index.clear().context("clear the index")?;
    let mut staging = Staging {
        scratch,
        before,
        tracked,
        index,
        redactor,
        links,
        has_attributes: false,
        at_remote: pointers::trees_at_remote(scratch)?,
        waiting: Vec::new(),
        left_out: BTreeMap::new(),
    };
    staging.walk()?;
    staging.settle(upload)?;
    staging.index.write().context("write the index")?;
    let tree = staging.index.write_tree().context("write the tree")?;
    let notes = staging
        .left_out
        .iter()
        .map(|(why, paths)| note(why, paths))
        .collect();
    Ok(Staged { tree, notes })
}

/// What the agent has in its index, or what the last commit has.
fn tracked(scratch: &Scratch, before: &Entries) -> Result<Entries> {
    let index = scratch.index_of_agent()?;
    Ok(match index {
        Some(index) => index
            .iter()
            .map(|entry| (entry.path, (entry.id, entry.mode)))
            .collect(),
        None => before.clone(),
    })
}

/// The submodules of a working tree, each with the link to it that the remote knows.
pub(super) fn submodules(scratch: &Scratch) -> Result<Vec<(Vec<u8>, Option<Oid>)>> {
    let head = scratch.head()?;
    let before = head.map(|commit| entries_of(&scratch.repo, commit));
    let before = before.transpose()?.unwrap_or_default();
    let at_remote = pointers::trees_at_remote(scratch)?;
    let tracked = tracked(scratch, &before)?.into_iter();
    let links = tracked.filter(|(_, (_, mode))| *mode == SUBMODULE);
    Ok(links
        .map(|(path, _)| {
            let known = known_link(scratch, &at_remote, &before, &path);
            (path, known)
        })
        .collect())
}

/// The link at `path` that the remote knows: the last commit's if it has that one on some branch,
/// else its newest.
fn known_link(scratch: &Scratch, at_remote: &[Oid], before: &Entries, path: &[u8]) -> Option<Oid> {
    let at = Path::new(OsStr::from_bytes(path));
    let link = |tree: &Oid| {
        let entry = scratch.repo.find_tree(*tree).ok()?.get_path(at).ok()?;
        (entry.kind() == Some(ObjectType::Commit)).then(|| entry.id())
    };
    let known: Vec<Oid> = at_remote.iter().filter_map(link).collect();
    let last = before.get(path).map(|(id, _)| *id);
    last.filter(|last| known.contains(last))
        .or(known.first().copied())
}

/// Paths of a tree with what they hold.
pub(super) type Entries = BTreeMap<Vec<u8>, (Oid, u32)>;

/// Everything below a commit's root tree but the folders.
pub(super) fn entries_of(repo: &Repository, commit: Oid) -> Result<Entries> {
    let mut entries = Entries::new();
    tree::walk(repo, commit, |path, entry| {
        if entry.kind() != Some(ObjectType::Tree) {
            let mode = entry.filemode().cast_unsigned();
            entries.insert(path.to_vec(), (entry.id(), mode));
        }
        Ok(())
    })
    .context("read the last commit")?;
    Ok(entries)
}

struct Staging<'a> {
    scratch: &'a Scratch,
    before: Entries,
    tracked: Entries,
    index: Index,
    redactor: &'a Redactor,
    links: &'a Links,
    has_attributes: bool,
    /// Root trees of the remote's branches.
    at_remote: Vec<Oid>,
    waiting: Vec<(Waiting, lfs::Content)>,
    left_out: BTreeMap<String, Vec<String>>,
}

impl Staging<'_> {
    fn walk(&mut self) -> Result<()> {
        let mut waiting = vec![PathBuf::new()];
        let mut seen = 0;
        while let Some(folder) = waiting.pop() {
            let Ok(entries) = fs::read_dir(self.scratch.work.join(&folder)) else {
                self.leave_out("it cannot be read", &folder)?;
                continue;
            };
            self.check_rules(&folder)?;
            for entry in entries {
                let Ok(entry) = entry else { break };
                seen += 1;
                ensure!(seen <= MAX_ENTRIES, "the working tree holds too many files");
                let path = folder.join(entry.file_name());
                if entry.file_name().as_bytes().eq_ignore_ascii_case(b".git") {
                    if !folder.as_os_str().is_empty() {
                        self.name(
                            "a nested repository; its files are committed, its history is not",
                            &folder,
                        );
                    }
                    continue;
                }
                match entry.metadata() {
                    Err(_) => self.leave_out("it cannot be read", &path)?,
                    Ok(found) if found.is_dir() => {
                        if self.enters(&path)? {
                            waiting.push(path);
                        }
                    }
                    Ok(found) => self.visit(&path, &found)?,
                }
            }
        }
        Ok(())
    }

    /// Whether to descend; a submodule is a link.
    fn enters(&mut self, path: &Path) -> Result<bool> {
        let bytes = path.as_os_str().as_bytes();
        if let Some((_, SUBMODULE)) = self.tracked.get(bytes) {
            let pushed = self.links.get(bytes).copied();
            let known = || known_link(self.scratch, &self.at_remote, &self.before, bytes);
            match pushed.or_else(known) {
                Some(id) => self
                    .index
                    .add(&entry_of(bytes, id, SUBMODULE, None))
                    .context("keep a submodule's link")?,
                None => self.name(
                    "a new submodule, whose commit nobody else is known to have",
                    path,
                ),
            }
            return Ok(false);
        }
        Ok(self.holds_tracked(bytes) || !self.is_ignored(&path.join(""))?)
    }

    fn visit(&mut self, path: &Path, found: &Metadata) -> Result<()> {
        let bytes = path.as_os_str().as_bytes();
        if !self.tracked.contains_key(bytes) && self.is_ignored(path)? {
            return Ok(());
        }
        let full = self.scratch.work.join(path);
        let (id, mode) = if found.is_symlink() {
            let Ok(target) = fs::read_link(&full) else {
                return self.leave_out("it cannot be read", path);
            };
            let id = self.scratch.repo.blob(target.as_os_str().as_bytes());
            (id.context("store a link")?, LINK)
        } else if found.is_file() {
            let mode = file_mode(found.mode());
            if self.has_attributes && lfs::is_lfs_path(&self.scratch.repo, path) {
                return self.visit_lfs(path, &full, found, mode);
            }
            match self.store(path, &full) {
                Ok(id) => (id, mode),
                Err(_) => return self.leave_out("it cannot be read", path),
            }
        } else {
            return self.leave_out("it is neither a file nor a link", path);
        };
        self.add(path, id, mode, found)
    }

    /// Hashes first: what is stored already is not written again. With attributes, what is
    /// stored may differ from what is read (line ends), so only an unchanged file is spared.
    fn store(&self, path: &Path, full: &Path) -> Result<Oid, git2::Error> {
        let id = Oid::hash_file(ObjectType::Blob, full)?;
        let before = self.before.get(path.as_os_str().as_bytes());
        let is_unchanged = before.is_some_and(|(before, _)| *before == id);
        if is_unchanged || (!self.has_attributes && self.scratch.repo.odb()?.exists(id)) {
            return Ok(id);
        }
        self.scratch.repo.blob_path(full)
    }

    fn add(&mut self, path: &Path, id: Oid, mode: u32, found: &Metadata) -> Result<()> {
        let entry = entry_of(path.as_os_str().as_bytes(), id, mode, Some(found));
        if self.index.add(&entry).is_err() {
            self.name("git does not accept its name", path);
        }
        Ok(())
    }

    /// Keeps what the last commit had at `path` and says so.
    fn leave_out(&mut self, why: &str, path: &Path) -> Result<()> {
        let bytes = path.as_os_str().as_bytes();
        let below = [bytes, b"/"].concat();
        let kept: Vec<_> = self
            .before
            .range(bytes.to_vec()..)
            .take_while(|(found, _)| found.starts_with(bytes))
            .filter(|(found, _)| *found == bytes || found.starts_with(&below))
            .map(|(found, (id, mode))| entry_of(found, *id, *mode, None))
            .collect();
        for entry in kept {
            self.index.add(&entry).context("keep an entry")?;
        }
        self.name(why, path);
        Ok(())
    }

    fn name(&mut self, why: &str, path: &Path) {
        let paths = self.left_out.entry(why.to_owned()).or_default();
        paths.push(path.display().to_string());
    }

    fn is_ignored(&self, path: &Path) -> Result<bool> {
        let ignored = self.scratch.repo.is_path_ignored(path);
        Ok(ignored.unwrap_or(false))
    }

    fn holds_tracked(&self, folder: &[u8]) -> bool {
        let below = [folder, b"/"].concat();
        let range = (Bound::Included(below.clone()), Bound::Unbounded);
        let first = self.tracked.range::<Vec<u8>, _>(range).next();
        first.is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// libgit2 opens these files, following links: it must find plain files of this tree.
    fn check_rules(&mut self, folder: &Path) -> Result<()> {
        for name in [".gitignore", ".gitattributes"] {
            let path = folder.join(name);
            let full = self.scratch.work.join(&path);
            if full.symlink_metadata().is_err() {
                continue;
            }
            let is_plain = full.canonicalize().is_ok_and(|real| {
                real.starts_with(&self.scratch.work)
                    && fs::metadata(&real)
                        .is_ok_and(|found| found.is_file() && found.len() <= MAX_RULES)
            });
            let is_harmless = is_plain || !full.exists() || full.is_dir();
            ensure!(
                is_harmless,
                "{} is not a plain file of the working tree, or larger than {MAX_RULES} bytes",
                path.display()
            );
            self.has_attributes |= is_plain && name == ".gitattributes";
        }
        Ok(())
    }
}

/// The mode that git keeps for a plain file.
pub(super) fn file_mode(mode: u32) -> u32 {
    match mode & 0o100 {
        0 => PLAIN,
        _ => EXECUTABLE,
    }
}

/// An entry of an index; without `found`, git looks at the file again.
pub(super) fn entry_of(path: &[u8], id: Oid, mode: u32, found: Option<&Metadata>) -> IndexEntry {
    // The index keeps 32 bits of each of these, by its format; git compares them the same way.
    let low = |number: u64| (number & u64::from(u32::MAX)) as u32;
    let time = |seconds: i64, nanos: i64| IndexTime::new(seconds as i32, nanos as u32);
    IndexEntry {
        ctime: found.map_or(IndexTime::new(0, 0), |f| time(f.ctime(), f.ctime_nsec())),
        mtime: found.map_or(IndexTime::new(0, 0), |f| time(f.mtime(), f.mtime_nsec())),
        dev: found.map_or(0, |f| low(f.dev())),
        ino: found.map_or(0, |f| low(f.ino())),
        mode,
        uid: found.map_or(0, MetadataExt::uid),
        gid: found.map_or(0, MetadataExt::gid),
        file_size: found.map_or(0, |f| low(f.len())),
        id,
        flags: 0,
        flags_extended: 0,
        path: path.to_vec(),
    }
}

fn note(why: &str, paths: &[String]) -> String {
    format!("Not as it is in the commit ({why}): {}", list(paths))
}
