//! A throw-away repository of our own that sees a repository's objects: neither its
//! configuration nor what it borrows from elsewhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};
use git2::{Config, Repository, RepositoryInitOptions};
use tempfile::TempDir;

use super::files::Pack;

/// Objects to be read.
pub(super) struct View {
    pub(super) repo: Repository,
    // Dropped last: the repository above lives in it.
    dir: TempDir,
}

impl View {
    /// Shows all loose objects and these packs; `tmp` must lie outside of the agent's reach, and
    /// everything below `objects` was found to be a plain file.
    pub(super) fn open(objects: &Path, packs: &[Pack], tmp: &Path) -> Result<Self> {
        let dir = TempDir::with_prefix_in("objects-", tmp).context("create a scratch directory")?;
        let shown = dir.path().join("shown");
        let link = || -> std::io::Result<()> {
            fs::create_dir_all(shown.join("pack"))?;
            for entry in fs::read_dir(objects)? {
                let name = entry?.file_name();
                if name.len() == 2 {
                    symlink(objects.join(&name), shown.join(&name))?;
                }
            }
            for (number, pack) in packs.iter().enumerate() {
                for end in ["pack", "idx"] {
                    let name = format!("pack-{number}.{end}");
                    symlink(pack.file.with_extension(end), shown.join("pack").join(name))?;
                }
            }
            Ok(())
        };
        link().context("show objects")?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false);
        let at = dir.path().join("repository");
        let repo = Repository::init_opts(&at, &options).context("create a scratch repository")?;
        fs::create_dir_all(at.join("objects/info"))
            .and_then(|()| {
                let line = format!("{}\n", shown.display());
                fs::write(at.join("objects/info/alternates"), line)
            })
            .context("link the objects")?;
        drop(repo);
        let repo = Repository::open_bare(&at).context("open the scratch repository")?;
        let config = Config::new().context("make an empty configuration")?;
        repo.set_config(&config)
            .context("set an empty configuration")?;
        Ok(Self { repo, dir })
    }

    /// The scratch directory, for files that vanish with it.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}
