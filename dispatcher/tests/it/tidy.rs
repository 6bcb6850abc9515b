let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {//! Conventions that a machine can check; the words for them stand in CONTRIBUTING.md.
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {use std::fs;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {use std::path::{Path, PathBuf};
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {/// No source file is longer than this; most should stay near a quarter of it.
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {const MAX_LINES: usize = 600;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn workspace() -> PathBuf {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    Path::new(env!("CARGO_MANIFEST_DIR"))
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        .parent()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        .expect("the workspace")
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        .to_owned()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {/// All files below `folder` with this extension, without build output.
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut found = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let Ok(entries) = fs::read_dir(folder) else {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        return found;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    };
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for entry in entries.map(|entry| entry.expect("directory entry").path()) {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let name = entry
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .file_name()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .and_then(|name| name.to_str())
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .unwrap_or_default();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if entry.is_dir() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            if !matches!(name, "target" | "node_modules" | ".git" | "portal") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                found.extend(files(&entry, extension));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        } else if entry.extension().is_some_and(|found| found == extension) {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            found.push(entry);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    found
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {/// Rust sources of all crates, as (path relative to the workspace, text).
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn sources() -> Vec<(String, String)> {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let root = workspace();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    ["dispatcher", "worker", "shared"]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        .iter()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        .flat_map(|crate_name| files(&root.join(crate_name), "rs"))
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        .map(|path| {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let text = fs::read_to_string(&path).expect("readable source");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let name = path.strip_prefix(&root).expect("inside the workspace");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            (name.to_string_lossy().into_owned(), text)
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        })
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        .collect()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn is_test(path: &str) -> bool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    path.contains("/tests/") || path.contains("/fixtures/") || path.contains("/benches/")
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {/// The part of a source file before its inline tests.
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn production(text: &str) -> &str {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn complain(what: &str, faults: &[String]) {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn files_are_short_and_say_what_they_are() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for (path, text) in sources() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let lines = text.lines().count();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if lines > MAX_LINES {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            faults.push(format!("{path} has {lines} lines, more than {MAX_LINES}"));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if !text.starts_with("//!") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            faults.push(format!("{path} does not begin with a //! header"));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain("split by idea, or say what the file is", &faults);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn sql_stands_in_stores_only() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for (path, text) in sources() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let is_store = path.contains("/store/") || path.ends_with("/store.rs");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        // The bench measures Postgres itself; `up` bootstraps a server before there is a schema.
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if is_test(&path) || is_store || path.starts_with("dispatcher/src/bench/") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            continue;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        for word in [
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            "sqlx::query",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            "query!(",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            "query_as!(",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            "query_scalar!(",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            "raw_sql(",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        ] {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            if production(&text).contains(word) {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                faults.push(format!("{path} contains {word}"));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain("SQL outside a feature's store", &faults);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn no_feature_reaches_into_anothers_store() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for (path, text) in sources() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if is_test(&path) {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            continue;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let feature = path.strip_prefix("dispatcher/src/").unwrap_or(&path);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let feature = feature.split('/').next().unwrap_or_default();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        for line in text.lines() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let Some((before, _)) = line.split_once("::store") else {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                continue;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            };
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let owner = before
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                .next();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let owner = owner.unwrap_or_default();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            if !matches!(owner, "self" | "super" | "crate" | "") && owner != feature {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                faults.push(format!("{path}: {}", line.trim()));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain("go through the feature's mod.rs", &faults);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn the_worker_knows_neither_postgres_nor_redis() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let manifest = fs::read_to_string(workspace().join("worker/Cargo.toml")).expect("manifest");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for name in ["sqlx", "redis", "aws-sdk-s3"] {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        assert!(!manifest.contains(name), "worker/Cargo.toml names {name}");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn no_shortcuts_in_production_code() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for (path, text) in sources() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if is_test(&path) {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            continue;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        for (number, line) in production(&text).lines().enumerate() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let code = line.split("//").next().unwrap_or_default();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            for word in [
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                "#[allow(",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                "#![allow(",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                ".unwrap()",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                "todo!(",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                "unimplemented!(",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            ] {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                if code.contains(word) {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                    faults.push(format!("{path}:{}: {word}", number + 1));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain(
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        "use #[expect(…, reason)], expect(\"why\") or an error",
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        &faults,
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    );
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn tests_wait_for_conditions_not_for_time() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for (path, text) in sources() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        // The one helper of each test binary that polls a condition with a bound.
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let is_helper = path.ends_with("/wait.rs");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if !path.contains("/tests/") || is_helper || path.ends_with("/tidy.rs") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            continue;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        for (number, line) in text.lines().enumerate() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            if line.contains("time::sleep(") || line.contains("thread::sleep(") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain("poll a condition through the `wait` module", &faults);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn every_source_file_is_linked() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let all = sources();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for (path, _) in &all {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let path = Path::new(path);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let stem = path
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .file_stem()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .and_then(|stem| stem.to_str())
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .unwrap_or_default();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let folder = path.parent().expect("a folder");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if matches!(stem, "main" | "lib" | "build") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            continue;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let (name, parents) = if stem == "mod" {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let name = folder
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                .file_name()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                .and_then(|name| name.to_str())
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                .unwrap_or_default();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            (name, folder.parent().expect("a parent folder"))
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        } else {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            (stem, folder)
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        };
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let linked = all.iter().any(|(other, text)| {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let other = Path::new(other);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            other.parent() == Some(parents)
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                && other
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                    .file_stem()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                    .is_some_and(|stem| stem == "mod" || stem == "lib" || stem == "main")
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                && text.lines().any(|line| {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                    let line = line.trim();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                    line.ends_with(&format!("mod {name};"))
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                })
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        });
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if !linked {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            faults.push(path.display().to_string());
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain("no `mod` line names these files", &faults);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn every_dependency_says_why_it_is_there() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let root = workspace();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for manifest in ["dispatcher", "worker", "shared", "shared/fixtures"] {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let text = fs::read_to_string(root.join(manifest).join("Cargo.toml")).expect("manifest");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let mut in_dependencies = false;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        for line in text.lines() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            if line.starts_with('[') {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                in_dependencies = line.contains("dependencies");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            } else if in_dependencies && line.contains('=') && !line.contains('#') {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                faults.push(format!("{manifest}/Cargo.toml: {line}"));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain("add a one-line comment", &faults);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn migrations_are_named_by_time_and_deed() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let folder = workspace().join("dispatcher/migrations");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for file in files(&folder, "sql") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let name = file
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .file_stem()
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .and_then(|stem| stem.to_str())
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            .unwrap_or_default();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        let (time, deed) = name.split_once('_').unwrap_or((name, ""));
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        if time.len() != 14 || !time.bytes().all(|b| b.is_ascii_digit()) || !deed.contains('_') {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            faults.push(name.to_owned());
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain("YYYYMMDDHHMMSS_verb_noun.sql", &faults);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {#[test]
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {fn the_repository_stands_alone() {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let root = workspace();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    let mut faults = Vec::new();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    for extension in ["rs", "md", "toml", "yml", "json", "sh", "sql"] {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        for file in files(&root, extension) {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let name = file.strip_prefix(&root).expect("inside the workspace");
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            if name.ends_with("tidy.rs") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                continue;
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            let text = fs::read_to_string(&file).unwrap_or_default();
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            if text.contains("../shared/design") || text.contains("../shared/research") {
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {                faults.push(name.display().to_string());
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {            }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {        }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    }
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {    complain("nothing may need a file outside the repository", &faults);
let is_tool = path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {}
