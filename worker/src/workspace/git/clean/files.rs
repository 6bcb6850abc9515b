//! What lies below a repository's `objects`. Only plain files and folders that git makes are
//! accepted, so that nothing is passed over and nothing leads elsewhere; files under other names
//! (half written ones, locks) are junk.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use git2::Oid;

/// Most objects that are remembered (32 MB of memory). Of further packs only the files are: as
/// long as those stay, nothing of them is read.
const MAX_KNOWN: usize = 4_000_000;

/// Most objects that may come into being in one run (20 MB of memory).
const MAX_NEW: usize = 1_000_000;

/// Most files below `objects`.
const MAX_FILES: usize = 2_000_000;

/// What belongs to a pack, by the end of its name.
const OF_PACKS: [&str; 7] = ["pack", "idx", "rev", "bitmap", "mtimes", "keep", "promisor"];

/// The files of objects.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Objects in files of their own.
    pub(super) loose: Vec<(Oid, PathBuf)>,
    pub(super) packs: Vec<Pack>,
    /// What no git reads.
    pub(super) junk: Vec<PathBuf>,
    count: usize,
}

/// A pack with its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pack {
    /// The `.pack`.
    pub(super) file: PathBuf,
    marks: [Mark; 2],
}

/// Changes whenever a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// Objects that were there before.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Beginnings of their names, in order.
    ids: Vec<u64>,
    packs: HashMap<PathBuf, Pack>,
}

impl Files {
    /// Lists them; fails if there is anything else.
    pub(super) fn list(objects: &Path) -> Result<Self> {
        let mut files = Self::default();
        for (name, path, is_dir) in files.entries(objects)? {
            match name.as_str() {
                name if is_dir && is_hex(name, 2) => files.fan_out(name, &path)?,
                "pack" if is_dir => files.pack_folder(&path)?,
                // Derived lists, not compressed; the archive's own search reads them.
                "info" if is_dir => {}
                // What another repository was about to push here.
                name if !is_dir || name.starts_with("tmp_") => files.junk.push(path),
                _ => bail!("objects/{name} is not known"),
            }
        }
        Ok(files)
    }

    fn fan_out(&mut self, start: &str, folder: &Path) -> Result<()> {
        for (name, path, is_dir) in self.entries(folder)? {
            ensure!(
                !is_dir && !is_hex(&name, 62),
                "objects/{start}/{name} is not known"
            );
            if is_hex(&name, 38) {
                let id = Oid::from_str(&format!("{start}{name}")).context("read a name")?;
                self.loose.push((id, path));
            } else {
                self.junk.push(path);
            }
        }
        Ok(())
    }

    fn pack_folder(&mut self, folder: &Path) -> Result<()> {
        for (name, path, is_dir) in self.entries(folder)? {
            let end = path.extension().and_then(OsStr::to_str).unwrap_or_default();
            let is_list = name.starts_with("multi-pack-index");
            ensure!(!is_dir || is_list, "objects/pack/{name} is not known");
            if end == "pack" {
                match Pack::find(path.clone())? {
                    Some(pack) => self.packs.push(pack),
                    None => self.junk.push(path),
                }
            } else if !is_list && !OF_PACKS.contains(&end) {
                self.junk.push(path);
            }
        }
        Ok(())
    }

    /// Name, path, and whether it is a folder; no links, no pipes.
    fn entries(&mut self, folder: &Path) -> Result<Vec<(String, PathBuf, bool)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).context("list objects")? {
            let entry = entry.context("list objects")?;
            let kind = entry.file_type().context("list objects")?;
            self.count += 1;
            ensure!(self.count <= MAX_FILES, "there are too many files");
            let Ok(name) = entry.file_name().into_string() else {
                bail!("objects holds a name that is not text");
            };
            ensure!(
                kind.is_dir() || kind.is_file(),
                "objects holds something that is not a plain file"
            );
            found.push((name, entry.path(), kind.is_dir()));
        }
        Ok(found)
    }

    /// What to remember of them.
    pub(super) fn known(&self) -> Result<Known> {
        let mut known = Known::default();
        for pack in &self.packs {
            known.packs.insert(pack.file.clone(), pack.clone());
            if known.ids.len() + pack.count()? <= MAX_KNOWN {
                pack.each(|id| known.ids.push(start_of(&id)))?;
            }
        }
        known
            .ids
            .extend(self.loose.iter().map(|(id, _)| start_of(id)));
        known.ids.sort_unstable();
        Ok(known)
    }

    /// Objects that were not there before: those in files of their own first.
    pub(super) fn new_objects(&self, known: &Known) -> Result<Vec<Oid>> {
        let mut new: Vec<Oid> = Vec::new();
        let loose = self.loose.iter().map(|(id, _)| *id);
        new.extend(loose.filter(|id| !known.has(id)));
        for pack in self.packs.iter().filter(|pack| !known.has_pack(pack)) {
            pack.each(|id| {
                if !known.has(&id) && new.len() <= MAX_NEW {
                    new.push(id);
                }
            })?;
        }
        ensure!(
            new.len() <= MAX_NEW,
            "more than {MAX_NEW} objects came into being"
        );
        Ok(new)
    }
}

impl Pack {
    /// `None` if it has no index: nothing reads it then.
    fn find(file: PathBuf) -> Result<Option<Self>> {
        let index = file.with_extension("idx");
        let (Ok(pack), Ok(index)) = (file.symlink_metadata(), index.symlink_metadata()) else {
            return Ok(None);
        };
        ensure!(index.is_file(), "a pack's index is not a plain file");
        let marks = [pack, index].map(|found| Mark {
            inode: found.ino(),
            size: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        Ok(Some(Self { file, marks }))
    }

    /// How many objects it has, as it says itself.
    fn count(&self) -> Result<usize> {
        let mut head = [0; 12];
        File::open(&self.file)
            .and_then(|mut file| file.read_exact(&mut head))
            .context("read a pack")?;
        let [b'P', b'A', b'C', b'K', _, _, _, _, count @ ..] = head else {
            bail!("a pack is damaged");
        };
        Ok(u32::from_be_bytes(count) as usize)
    }

    /// Visits the names of its objects, as its index has them.
    pub(super) fn each(&self, mut visit: impl FnMut(Oid)) -> Result<()> {
        let file = File::open(self.file.with_extension("idx")).context("read a pack's index")?;
        let mut file = BufReader::with_capacity(256 * 1024, file);
        // Magic, version, and how many names begin with a byte up to each.
        let mut head = [0; 8 + 256 * 4];
        file.read_exact(&mut head).context("read a pack's index")?;
        let (version, last) = (&head[..8], &head[head.len() - 4..]);
        ensure!(
            version == b"\xfftOc\0\0\0\x02",
            "a pack's index is damaged or of an old kind"
        );
        let count = u32::from_be_bytes(last.try_into().expect("four bytes"));
        ensure!(
            count as usize == self.count()?,
            "a pack and its index do not belong together"
        );
        let mut name = [0; 20];
        for _ in 0..count {
            file.read_exact(&mut name).context("read a pack's index")?;
            visit(Oid::from_bytes(&name).context("read a pack's index")?);
        }
        Ok(())
    }
}

impl Known {
    pub(super) fn has(&self, id: &Oid) -> bool {
        self.ids.binary_search(&start_of(id)).is_ok()
    }

    /// Whether this pack was there, and as it is.
    pub(super) fn has_pack(&self, pack: &Pack) -> bool {
        self.packs.get(&pack.file) == Some(pack)
    }
}

/// Enough of a name: that two objects share it does not happen by chance.
fn start_of(id: &Oid) -> u64 {
    let start = id.as_bytes()[..8].try_into().expect("twenty bytes");
    u64::from_be_bytes(start)
}

fn is_hex(name: &str, length: usize) -> bool {
    name.len() == length && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
