//! How the objects of a run lead to one another.

use std::collections::{BTreeSet, HashMap, HashSet};

use git2::{Index, ObjectType, Oid, Repository};

/// Longest path that is put together, in folders.
const MAX_DEPTH: usize = 200;

/// Which new objects lead to which, and where they are.
#[derive(Default)]
pub(super) struct Graph {
    leads_to: HashMap<Oid, Vec<Oid>>,
    /// The tree in which an object was first seen, and its name there.
    places: HashMap<Oid, (Oid, Vec<u8>)>,
    kinds: HashMap<Oid, ObjectType>,
}

impl Graph {
    /// Reads how `new` objects hang together. Those that cannot be read join `hits`, which are
    /// small enough to be read as a whole if they lead anywhere.
    pub(super) fn of(repo: &Repository, new: &HashSet<Oid>, hits: &mut HashSet<Oid>) -> Self {
        let mut graph = Self::default();
        for id in new {
            if graph.add(repo, *id, new).is_err() {
                hits.insert(*id);
            }
        }
        graph
    }

    fn add(&mut self, repo: &Repository, id: Oid, new: &HashSet<Oid>) -> Result<(), git2::Error> {
        let (_, kind) = repo.odb()?.read_header(id)?;
        self.kinds.insert(id, kind);
        let mut next: Vec<Oid> = match kind {
            ObjectType::Commit => {
                let commit = repo.find_commit(id)?;
                commit.parent_ids().chain([commit.tree_id()]).collect()
            }
            ObjectType::Tree => {
                let tree = repo.find_tree(id)?;
                for entry in tree.iter().filter(|entry| new.contains(&entry.id())) {
                    let place = || (id, entry.name_bytes().to_vec());
                    self.places.entry(entry.id()).or_insert_with(place);
                }
                tree.iter().map(|entry| entry.id()).collect()
            }
            ObjectType::Tag => vec![repo.find_tag(id)?.target_id()],
            _ => Vec::new(),
        };
        next.retain(|id| new.contains(id));
        if !next.is_empty() {
            self.leads_to.insert(id, next);
        }
        Ok(())
    }

    /// These objects and all that lead to them.
    pub(super) fn above(&self, below: &HashSet<Oid>) -> HashSet<Oid> {
        let mut led_from: HashMap<Oid, Vec<Oid>> = HashMap::new();
        for (from, to) in &self.leads_to {
            for to in to {
                led_from.entry(*to).or_default().push(*from);
            }
        }
        reached(below.iter().copied(), &led_from)
    }

    /// The new objects among these, and all to which they lead.
    pub(super) fn below(&self, tips: &[Oid]) -> HashSet<Oid> {
        let new = tips.iter().filter(|tip| self.kinds.contains_key(tip));
        reached(new.copied(), &self.leads_to)
    }

    /// Where these objects are, for people: paths, and words where there is none. `index` knows
    /// files that were staged and never committed.
    pub(super) fn name(&self, hits: &HashSet<Oid>, index: Option<&Index>) -> Vec<String> {
        let mut names = BTreeSet::new();
        let staged: HashMap<Oid, Vec<u8>> = index
            .iter()
            .flat_map(|index| index.iter())
            .map(|entry| (entry.id, entry.path))
            .collect();
        for id in hits {
            let short = id.to_string()[..7].to_owned();
            let name = match self.kinds.get(id) {
                Some(ObjectType::Commit) => format!("the message of commit {short}"),
                Some(ObjectType::Tag) => "the message of a tag".to_owned(),
                Some(ObjectType::Tree) => match self.path(id) {
                    path if path.is_empty() => "the name of a file".to_owned(),
                    path => format!("the name of a file in {path:?}"),
                },
                _ => match (self.path(id), staged.get(id)) {
                    (path, None) if path.is_empty() => format!("object {short}"),
                    (path, Some(staged)) if path.is_empty() => {
                        format!("{:?}", String::from_utf8_lossy(staged))
                    }
                    (path, _) => format!("{path:?}"),
                },
            };
            names.insert(name);
        }
        names.into_iter().collect()
    }

    fn path(&self, id: &Oid) -> String {
        let mut names = Vec::new();
        let mut at = id;
        while let Some((tree, name)) = self.places.get(at)
            && names.len() < MAX_DEPTH
        {
            names.push(String::from_utf8_lossy(name));
            at = tree;
        }
        names.reverse();
        names.join("/")
    }
}

fn reached(from: impl Iterator<Item = Oid>, leads_to: &HashMap<Oid, Vec<Oid>>) -> HashSet<Oid> {
    let mut found: HashSet<Oid> = from.collect();
    let mut waiting: Vec<Oid> = found.iter().copied().collect();
    while let Some(id) = waiting.pop() {
        for next in leads_to.get(&id).into_iter().flatten() {
            if found.insert(*next) {
                waiting.push(*next);
            }
        }
    }
    found
}
