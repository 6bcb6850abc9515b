//! What the shipped alerts and the dashboard name is what dispatchers really measure.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn text_below(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        if path.is_dir() {
            text.push_str(&text_below(&path));
        } else {
            text.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
    text
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let dispatcher = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = text_below(&dispatcher.join("src"));
    let shipped = text_below(&dispatcher.join("../deploy/observability"));
    let mut named = BTreeSet::new();
    for (at, _) in shipped.match_indices("clawlink_") {
        let rest = &shipped[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = &rest[..end.unwrap_or(rest.len())];
        let base = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        named.insert(base.unwrap_or(name));
    }
    assert!(named.len() > 15, "they are found: {named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !source.contains(&format!("\"{name}\"")))
        .collect();
    assert!(missing.is_empty(), "nobody measures {missing:?}");
    serde_json::from_str::<serde_json::Value>(
        &fs::read_to_string(dispatcher.join("../deploy/observability/grafana.json")).expect("read"),
    )
    .expect("the dashboard is JSON");
}
