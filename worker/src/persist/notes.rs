//! What people are told about an archive: which files were left out or changed, and why.
//! Bounded: beyond some names only a number.

/// Files that are named when left out; of the others the number is told.
const MAX_NOTES: usize = 20;

/// What people are told.
#[derive(Default)]
pub(super) struct Notes {
    lines: Vec<String>,
    more: u64,
}

impl Notes {
    pub(super) fn add(&mut self, path: &[u8], why: &str) {
        self.push(format!("left out of the session: {} ({why})", shown(path)));
    }

    pub(super) fn overwritten(&mut self, path: &[u8]) {
        self.push(format!(
            "a secret was overwritten with * in the saved {}",
            shown(path)
        ));
    }

    fn push(&mut self, line: String) {
        if self.lines.len() < MAX_NOTES {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            let more = self.more;
            self.lines
                .push(format!("and {more} more files were left out or changed"));
        }
        self.lines
    }
}

/// A path as people see it.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars()
        .take(300)
        .flat_map(char::escape_debug)
        .collect()
}
