//! What a repository's references name, taken back to what may travel.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use git2::{Oid, Reference, Repository};

use super::remove;
use crate::workspace::git::dotgit;

/// Where `HEAD` points that pointed to a commit which goes.
const NEW_BRANCH: &str = "refs/heads/main";

/// All references and `HEAD`.
pub(super) struct References {
    head: Target,
    all: BTreeMap<String, Target>,
}

#[derive(Clone, PartialEq, Eq)]
enum Target {
    Object(Oid),
    /// Another reference.
    Name(String),
}

/// A branch that went back.
pub(super) struct Moved {
    /// Its name, or `HEAD`.
    pub(super) name: String,
    /// Its commit now; `None`: it has none any more.
    pub(super) to: Option<Oid>,
}

impl References {
    /// Reads them; what is not valid is left out.
    pub(super) fn read(git_dir: &Path) -> Result<Self> {
        let head = dotgit::head_text(git_dir)?.and_then(|text| target(&text));
        let Some(head) = head else {
            bail!("its HEAD says nothing");
        };
        let mut named = dotgit::packed_references(git_dir)?;
        named.extend(dotgit::loose_references(git_dir, Path::new("refs"))?);
        let valid = named.into_iter().filter_map(|(name, text)| {
            let is_valid = Reference::is_valid_name(&name) && name.starts_with("refs/");
            Some((name, target(&text)?)).filter(|_| is_valid)
        });
        Ok(Self {
            head,
            all: valid.collect(),
        })
    }

    /// Takes branches back to their last commit that is not among `gone`, and drops every other
    /// reference that leads there; answers which.
    pub(super) fn go_back(&mut self, repo: &Repository, gone: &HashSet<Oid>) -> Vec<Moved> {
        let mut moved = Vec::new();
        self.all.retain(|name, at| {
            let Target::Object(tip) = at else { return true };
            if !gone.contains(tip) {
                return true;
            }
            let to = match name.starts_with("refs/heads/") {
                true => last_kept(repo, *tip, gone),
                false => None,
            };
            let shown = name.strip_prefix("refs/heads/").unwrap_or(name);
            moved.push(Moved {
                name: shown.to_owned(),
                to,
            });
            to.inspect(|to| *at = Target::Object(*to)).is_some()
        });
        if let Target::Object(tip) = self.head
            && gone.contains(&tip)
        {
            let to = last_kept(repo, tip, gone);
            self.head = to.map_or(Target::Name(NEW_BRANCH.to_owned()), Target::Object);
            moved.push(Moved {
                name: "HEAD".to_owned(),
                to,
            });
        }
        moved
    }

    /// The objects that they name.
    pub(super) fn tips(&self) -> Vec<Oid> {
        let all = self.all.values().chain([&self.head]);
        all.filter_map(|target| match target {
            Target::Object(id) => Some(*id),
            Target::Name(_) => None,
        })
        .collect()
    }

    /// The commit that `HEAD` is at.
    pub(super) fn head_commit(&self) -> Option<Oid> {
        match &self.head {
            Target::Object(id) => Some(*id),
            Target::Name(name) => match self.all.get(name)? {
                Target::Object(id) => Some(*id),
                Target::Name(_) => None,
            },
        }
    }

    /// Writes them in place of those that are there.
    pub(super) fn write(&self, git_dir: &Path) -> Result<()> {
        remove(&git_dir.join("refs")).context("replace the references")?;
        // Without these folders it would not be a repository.
        for folder in ["refs/heads", "refs/tags"] {
            std::fs::create_dir_all(git_dir.join(folder)).context("replace the references")?;
        }
        let mut packed = String::new();
        for (name, target) in &self.all {
            match target {
                Target::Object(id) => writeln!(packed, "{id} {name}").expect("text grows"),
                Target::Name(_) => {
                    dotgit::replace(git_dir, Path::new(name), target.text().as_bytes())?;
                }
            }
        }
        dotgit::replace(git_dir, Path::new("packed-refs"), packed.as_bytes())?;
        dotgit::replace(git_dir, Path::new("HEAD"), self.head.text().as_bytes())
    }
}

impl Target {
    fn text(&self) -> String {
        match self {
            Self::Object(id) => format!("{id}\n"),
            Self::Name(name) => format!("ref: {name}\n"),
        }
    }
}

fn target(text: &str) -> Option<Target> {
    match text.strip_prefix("ref:").map(str::trim) {
        Some(name) => Reference::is_valid_name(name).then(|| Target::Name(name.to_owned())),
        None => Oid::from_str(text)
            .ok()
            .filter(|_| text.len() == 40)
            .map(Target::Object),
    }
}

/// The nearest commit below `tip` that stays, first parents first.
fn last_kept(repo: &Repository, tip: Oid, gone: &HashSet<Oid>) -> Option<Oid> {
    let mut waiting = VecDeque::from([tip]);
    let mut seen = HashSet::from([tip]);
    while let Some(id) = waiting.pop_front() {
        let Ok(commit) = repo.find_commit(id) else {
            continue;
        };
        if !gone.contains(&id) {
            return Some(id);
        }
        waiting.extend(commit.parent_ids().filter(|parent| seen.insert(*parent)));
    }
    None
}
