//! The few facts that are taken from a `.git` which an agent may have rewritten.
//!
//! Nothing in it is ever opened as a repository: its configuration, hooks, alternates and
//! work-tree pointers are not read. Objects are used through a throw-away repository of our
//! own after every entry below `objects` proved to be a plain file; references are read as
//! small plain files. A `.git` that is not a real directory, or that holds links where files
//! belong, is refused.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use git2::{Config, Oid, Repository, RepositoryInitOptions};
use tempfile::{NamedTempFile, TempDir};

/// A reference's file is never larger, in bytes.
const MAX_REF: u64 = 4096;

/// Bound of `packed-refs`, `shallow` and `info/exclude`, in bytes.
const MAX_LIST: u64 = 64 * 1024 * 1024;

/// Bound of the index, in bytes.
const MAX_INDEX: u64 = 512 * 1024 * 1024;

/// Most files below `objects`.
const MAX_OBJECT_FILES: usize = 2_000_000;

/// Most references that are read as files of their own.
const MAX_LOOSE_REFS: usize = 10_000;

/// How deep directories below `objects` may nest.
const MAX_OBJECT_DEPTH: usize = 3;

/// A repository of our own that sees the session's objects and its working tree.
pub(super) struct Scratch {
    pub(super) repo: Repository,
    /// The working tree, without links in its path.
    pub(super) work: PathBuf,
    /// Commits whose parents were never fetched.
    pub(super) shallow: Vec<Oid>,
    git_dir: PathBuf,
    // Dropped last: the repository above lives in it.
    dir: TempDir,
}

impl Scratch {
    /// Checks `work/.git` and makes the throw-away repository below `tmp`, which must lie
    /// outside of what the agent can write.
    pub(super) fn open(work: &Path, tmp: &Path) -> Result<Self> {
        let work = work.canonicalize().context("find the working tree")?;
        let git_dir = work.join(".git");
        ensure!(
            is_real_dir(&git_dir),
            ".git is not a directory of its own; it was replaced or moved away"
        );
        let objects = git_dir.join("objects");
        check_objects(&objects)?;
        ensure!(
            !exists(&git_dir.join("reftable")),
            ".git keeps its references in a format that is not supported (reftable)"
        );
        let dir = TempDir::with_prefix_in("git-", tmp).context("create a scratch directory")?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false);
        Repository::init_opts(dir.path(), &options).context("create a scratch repository")?;
        let shallow = read_shallow(&git_dir)?;
        let info = dir.path().join("objects/info");
        fs::create_dir_all(&info).context("create a scratch repository")?;
        let mut alternates = objects.into_os_string().into_encoded_bytes();
        ensure!(
            !alternates.contains(&b'\n'),
            "the session's path holds a line break"
        );
        alternates.push(b'\n');
        fs::write(info.join("alternates"), alternates).context("link the session's objects")?;
        if !shallow.is_empty() {
            let lines: String = shallow.iter().map(|oid| format!("{oid}\n")).collect();
            fs::write(dir.path().join("shallow"), lines).context("write the shallow file")?;
        }
        if let Some(rules) = read_plain(&git_dir, Path::new("info/exclude"), MAX_LIST)? {
            fs::create_dir_all(dir.path().join("info")).context("create a scratch repository")?;
            fs::write(dir.path().join("info/exclude"), rules).context("copy the exclude rules")?;
        }
        // Not `open_bare`, which does not learn about shallow commits.
        let repo = Repository::open(dir.path()).context("open the scratch repository")?;
        repo.set_config(&Config::new().context("make an empty configuration")?)
            .context("set an empty configuration")?;
        repo.set_workdir(&work, false)
            .context("set the working tree")?;
        Ok(Self {
            repo,
            work,
            shallow,
            git_dir,
            dir,
        })
    }

    /// The scratch directory, for files that vanish with it.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What `HEAD` points to, if it is a commit that exists.
    pub(super) fn head(&self) -> Result<Option<Oid>> {
        let Some(text) = head_text(&self.git_dir)? else {
            return Ok(None);
        };
        match text.strip_prefix("ref:") {
            Some(name) => self.reference(name.trim()),
            None => Ok(self.existing(&text)),
        }
    }

    /// What a reference points to, if it is a commit that exists.
    pub(super) fn reference(&self, name: &str) -> Result<Option<Oid>> {
        ensure!(
            git2::Reference::is_valid_name(name) && name.starts_with("refs/"),
            ".git names a reference that is not valid"
        );
        if let Some(text) = read_plain(&self.git_dir, Path::new(name), MAX_REF)? {
            return Ok(self.existing(String::from_utf8_lossy(&text).trim()));
        }
        let packed = self.packed(|found| found == name)?;
        Ok(packed.first().copied())
    }

    /// Commits that the remote is known to have had: everything below `refs/remotes/origin`.
    pub(super) fn known_to_remote(&self) -> Result<Vec<Oid>> {
        let mut known = self.packed(|name| name.starts_with("refs/remotes/origin/"))?;
        let loose = loose_references(&self.git_dir, Path::new("refs/remotes/origin"))?;
        known.extend(loose.iter().filter_map(|(_, text)| self.existing(text)));
        Ok(known)
    }

    /// The agent's index, if it is there and readable.
    pub(super) fn index_of_agent(&self) -> Result<Option<git2::Index>> {
        index_of_agent(&self.git_dir, &self.path().join("index-of-agent"))
    }

    /// Gives the session what was made here: new objects, the branch, the index.
    pub(super) fn write_back(&self, reference: &str, tip: Oid) -> Result<()> {
        self.copy_objects()
            .context("copy new objects into the session")?;
        self.write_reference(reference, tip)?;
        let index = self.path().join("index");
        if exists(&index) {
            let bytes = fs::read(index).context("read the new index")?;
            replace(&self.git_dir, Path::new("index"), &bytes)?;
        }
        replace(
            &self.git_dir,
            Path::new("HEAD"),
            format!("ref: {reference}\n").as_bytes(),
        )
    }

    /// Sets a reference of the session.
    pub(super) fn write_reference(&self, name: &str, tip: Oid) -> Result<()> {
        replace(
            &self.git_dir,
            Path::new(name),
            format!("{tip}\n").as_bytes(),
        )
    }

    fn copy_objects(&self) -> Result<()> {
        let from = self.path().join("objects");
        for folder in fs::read_dir(&from)? {
            let folder = folder?.file_name();
            if folder.len() != 2 && folder != "pack" {
                continue;
            }
            for object in fs::read_dir(from.join(&folder))? {
                let object = object?;
                let to = Path::new("objects").join(&folder).join(object.file_name());
                if !exists(&self.git_dir.join(&to)) {
                    make_folders(&self.git_dir, &to)?;
                    fs::copy(object.path(), self.git_dir.join(&to))?;
                }
            }
        }
        Ok(())
    }

    fn packed(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Oid>> {
        let packed = packed_references(&self.git_dir)?;
        Ok(packed
            .iter()
            .filter(|(name, _)| wanted(name))
            .filter_map(|(_, hash)| self.existing(hash))
            .collect())
    }

    fn existing(&self, hash: &str) -> Option<Oid> {
        let oid = Oid::from_str(hash).ok().filter(|_| hash.len() == 40)?;
        self.repo.find_commit(oid).ok().map(|commit| commit.id())
    }
}

/// Names and contents of the references below a folder of `git_dir` that are files of their own.
pub(super) fn loose_references(git_dir: &Path, folder: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(folder) = waiting.pop() {
        let full = git_dir.join(&folder);
        if !is_real_path(git_dir, &folder) || !is_real_dir(&full) {
            continue;
        }
        for entry in fs::read_dir(&full).context("list references")? {
            let entry = entry.context("list references")?;
            let path = folder.join(entry.file_name());
            files += 1;
            ensure!(files <= MAX_LOOSE_REFS, ".git holds too many references");
            if entry.file_type().context("list references")?.is_dir() {
                waiting.push(path);
            } else if let Some(text) = read_plain(git_dir, &path, MAX_REF)? {
                let name = path.to_string_lossy().into_owned();
                found.push((name, String::from_utf8_lossy(&text).trim().to_owned()));
            }
        }
    }
    Ok(found)
}

/// Names and hashes of the references in `packed-refs`.
pub(super) fn packed_references(git_dir: &Path) -> Result<Vec<(String, String)>> {
    let text = read_plain(git_dir, Path::new("packed-refs"), MAX_LIST)?;
    let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with(['#', '^']));
    let pairs = lines.filter_map(|line| line.split_once(' '));
    Ok(pairs
        .map(|(hash, name)| (name.to_owned(), hash.to_owned()))
        .collect())
}

/// What `HEAD` says, if it is there.
pub(super) fn head_text(git_dir: &Path) -> Result<Option<String>> {
    let text = read_plain(git_dir, Path::new("HEAD"), MAX_REF)?;
    Ok(text.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
}

/// The index of `git_dir`, if it is there and readable; `copy` is a place out of the agent's reach.
pub(super) fn index_of_agent(git_dir: &Path, copy: &Path) -> Result<Option<git2::Index>> {
    let Some(bytes) = read_plain(git_dir, Path::new("index"), MAX_INDEX)? else {
        return Ok(None);
    };
    fs::write(copy, bytes).context("copy the index")?;
    Ok(git2::Index::open(copy).ok())
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

pub(super) fn is_real_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Whether every folder on the way from `root` to `path` is a directory, not a link.
pub(super) fn is_real_path(root: &Path, path: &Path) -> bool {
    let mut at = root.to_owned();
    let folders = path.parent().unwrap_or(Path::new("")).components();
    is_real_dir(root)
        && folders.into_iter().all(|component| {
            at.push(component);
            matches!(component, Component::Normal(_)) && is_real_dir(&at)
        })
}

/// Every entry is a plain file or a directory, and nothing points elsewhere.
fn check_objects(objects: &Path) -> Result<()> {
    ensure!(
        is_real_dir(objects),
        ".git/objects is not a directory of its own"
    );
    let mut waiting = vec![(objects.to_owned(), 0)];
    let mut files = 0;
    while let Some((folder, depth)) = waiting.pop() {
        ensure!(
            depth < MAX_OBJECT_DEPTH,
            ".git/objects is nested too deeply"
        );
        for entry in fs::read_dir(&folder).context("list .git/objects")? {
            let entry = entry.context("list .git/objects")?;
            let kind = entry.file_type().context("list .git/objects")?;
            files += 1;
            ensure!(
                files <= MAX_OBJECT_FILES,
                ".git/objects holds too many files"
            );
            let name = entry.file_name();
            if name == OsStr::new("alternates") || name == OsStr::new("http-alternates") {
                bail!(".git/objects borrows objects from elsewhere (info/alternates)");
            }
            if kind.is_dir() {
                waiting.push((entry.path(), depth + 1));
            } else if !kind.is_file() {
                bail!(".git/objects holds something that is not a plain file");
            }
        }
    }
    Ok(())
}

/// A plain file's content; `None` if there is none. A link, a pipe, a huge file is an error.
fn read_plain(root: &Path, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let full = root.join(path);
    let Ok(found) = full.symlink_metadata() else {
        return Ok(None);
    };
    let shown = path.display();
    if found.is_dir() {
        return Ok(None);
    }
    ensure!(
        found.is_file() && is_real_path(root, path),
        ".git/{shown} is not a plain file"
    );
    ensure!(found.len() <= max_bytes, ".git/{shown} is too large");
    let mut content = Vec::new();
    File::open(&full)
        .and_then(|file| file.take(max_bytes).read_to_end(&mut content))
        .with_context(|| format!("read .git/{shown}"))?;
    Ok(Some(content))
}

fn read_shallow(git_dir: &Path) -> Result<Vec<Oid>> {
    let text = read_plain(git_dir, Path::new("shallow"), MAX_LIST)?.unwrap_or_default();
    String::from_utf8_lossy(&text)
        .split_whitespace()
        .map(|line| Oid::from_str(line).context("read .git/shallow"))
        .collect()
}

/// Makes the folders on the way from `root` to `path`, none of them behind a link.
fn make_folders(root: &Path, path: &Path) -> Result<()> {
    let mut at = root.to_owned();
    for folder in path.parent().unwrap_or(Path::new("")).components() {
        at.push(folder);
        if !exists(&at) {
            fs::create_dir(&at)
                .with_context(|| format!("create a folder for .git/{}", path.display()))?;
        }
        ensure!(
            matches!(folder, Component::Normal(_)) && is_real_dir(&at),
            ".git/{} lies behind a link",
            path.display()
        );
    }
    Ok(())
}

/// Writes a file by renaming, so that a link in its place is replaced and never followed.
pub(super) fn replace(root: &Path, path: &Path, content: &[u8]) -> Result<()> {
    make_folders(root, path)?;
    let full = root.join(path);
    let folder = full.parent().unwrap_or(root);
    let write = || -> std::io::Result<()> {
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(content)?;
        file.persist(&full)?;
        Ok(())
    };
    write().with_context(|| format!("write .git/{}", path.display()))
}
