//! `clawlink up` and its parts: real servers, real processes, real crashes.

mod alone;
mod parts;
mod process;
mod running;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

/// A directory with a space in its name that the servers' users can enter.
fn scratch() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("clawlink up ")
        .tempdir()
        .expect("make a scratch directory");
    open_to_all(dir.path());
    dir
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("change mode");
}

fn mode(path: &Path) -> u32 {
    let meta = std::fs::metadata(path).expect("read metadata");
    meta.permissions().mode() & 0o777
}
