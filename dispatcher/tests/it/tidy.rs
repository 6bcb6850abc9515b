//! Conventions that a machine can check; the words for them stand in CONTRIBUTING.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// No source file is longer than this; most should stay near a quarter of it.
const MAX_LINES: usize = 600;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

/// All files below `folder` with this extension, without build output.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.map(|entry| entry.expect("directory entry").path()) {
        let name = entry
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if entry.is_dir() {
            if !matches!(name, "target" | "node_modules" | ".git" | "portal") {
                found.extend(files(&entry, extension));
            }
        } else if entry.extension().is_some_and(|found| found == extension) {
            found.push(entry);
        }
    }
    found
}

/// Rust sources of all crates, as (path relative to the workspace, text).
fn sources() -> Vec<(String, String)> {
    let root = workspace();
    ["dispatcher", "worker", "shared"]
        .iter()
        .flat_map(|crate_name| files(&root.join(crate_name), "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("readable source");
            let name = path.strip_prefix(&root).expect("inside the workspace");
            (name.to_string_lossy().into_owned(), text)
        })
        .collect()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.contains("/fixtures/") || path.contains("/benches/")
}

/// The part of a source file before its inline tests.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn complain(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{path} has {lines} lines, more than {MAX_LINES}"));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{path} does not begin with a //! header"));
        }
    }
    complain("split by idea, or say what the file is", &faults);
}

#[test]
fn sql_stands_in_stores_only() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let is_store = path.contains("/store/") || path.ends_with("/store.rs");
        // The bench measures Postgres itself; `up` bootstraps a server before there is a schema.
        let is_tool =
            path.starts_with("dispatcher/src/bench/") || path.ends_with("/up/postgres.rs");
        if is_test(&path) || is_store || is_tool {
            continue;
        }
        for word in [
            "sqlx::query",
            "query!(",
            "query_as!(",
            "query_scalar!(",
            "raw_sql(",
        ] {
            if production(&text).contains(word) {
                faults.push(format!("{path} contains {word}"));
            }
        }
    }
    complain("SQL outside a feature's store", &faults);
}

#[test]
fn no_feature_reaches_into_anothers_store() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if is_test(&path) {
            continue;
        }
        let feature = path.strip_prefix("dispatcher/src/").unwrap_or(&path);
        let feature = feature.split('/').next().unwrap_or_default();
        for line in text.lines() {
            let Some((before, _)) = line.split_once("::store") else {
                continue;
            };
            let owner = before
                .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
                .next();
            let owner = owner.unwrap_or_default();
            if !matches!(owner, "self" | "super" | "crate" | "") && owner != feature {
                faults.push(format!("{path}: {}", line.trim()));
            }
        }
    }
    complain("go through the feature's mod.rs", &faults);
}

#[test]
fn the_worker_knows_neither_postgres_nor_redis() {
    let manifest = fs::read_to_string(workspace().join("worker/Cargo.toml")).expect("manifest");
    for name in ["sqlx", "redis", "aws-sdk-s3"] {
        assert!(!manifest.contains(name), "worker/Cargo.toml names {name}");
    }
}

#[test]
fn no_shortcuts_in_production_code() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if is_test(&path) {
            continue;
        }
        for (number, line) in production(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in [
                "#[allow(",
                "#![allow(",
                ".unwrap()",
                "todo!(",
                "unimplemented!(",
            ] {
                if code.contains(word) {
                    faults.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    complain(
        "use #[expect(…, reason)], expect(\"why\") or an error",
        &faults,
    );
}

#[test]
fn tests_wait_for_conditions_not_for_time() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        // The one helper of each test binary that polls a condition with a bound.
        let is_helper = path.ends_with("/wait.rs");
        if !path.contains("/tests/") || is_helper || path.ends_with("/tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if line.contains("time::sleep(") || line.contains("thread::sleep(") {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    complain("poll a condition through the `wait` module", &faults);
}

#[test]
fn every_source_file_is_linked() {
    let all = sources();
    let mut faults = Vec::new();
    for (path, _) in &all {
        let path = Path::new(path);
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let folder = path.parent().expect("a folder");
        if matches!(stem, "main" | "lib" | "build") {
            continue;
        }
        let (name, parents) = if stem == "mod" {
            let name = folder
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            (name, folder.parent().expect("a parent folder"))
        } else {
            (stem, folder)
        };
        let linked = all.iter().any(|(other, text)| {
            let other = Path::new(other);
            other.parent() == Some(parents)
                && other
                    .file_stem()
                    .is_some_and(|stem| stem == "mod" || stem == "lib" || stem == "main")
                && text.lines().any(|line| {
                    let line = line.trim();
                    line.ends_with(&format!("mod {name};"))
                })
        });
        if !linked {
            faults.push(path.display().to_string());
        }
    }
    complain("no `mod` line names these files", &faults);
}

/// Two types of one name are one schema of the OpenAPI document: of one of them it is untrue.
#[test]
fn schemas_have_names_of_their_own() {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        for derived in text.split("ToSchema").skip(1) {
            let Some((attributes, item)) = derived.split_once("struct ") else {
                continue;
            };
            // The derive of something else, such as an enum, or an import.
            if !derived.starts_with([')', ',']) || attributes.contains("enum ") {
                continue;
            }
            let word = |text: &str| {
                let name = text.chars().take_while(|c| c.is_alphanumeric());
                name.collect::<String>()
            };
            let name = match attributes.split_once("(as = ") {
                Some((_, name)) => word(name),
                None => word(item),
            };
            if let Some(other) = names.insert(name.clone(), path.clone()) {
                faults.push(format!("{path} and {other} both have `{name}`"));
            }
        }
    }
    assert!(names.len() > 50, "{} are found", names.len());
    complain("name one otherwise by `#[schema(as = …)]`", &faults);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let root = workspace();
    let mut faults = Vec::new();
    for manifest in ["dispatcher", "worker", "shared", "shared/fixtures"] {
        let text = fs::read_to_string(root.join(manifest).join("Cargo.toml")).expect("manifest");
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.contains('#') {
                faults.push(format!("{manifest}/Cargo.toml: {line}"));
            }
        }
    }
    complain("add a one-line comment", &faults);
}

#[test]
fn migrations_are_named_by_time_and_deed() {
    let folder = workspace().join("dispatcher/migrations");
    let mut faults = Vec::new();
    for file in files(&folder, "sql") {
        let name = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let (time, deed) = name.split_once('_').unwrap_or((name, ""));
        if time.len() != 14 || !time.bytes().all(|b| b.is_ascii_digit()) || !deed.contains('_') {
            faults.push(name.to_owned());
        }
    }
    complain("YYYYMMDDHHMMSS_verb_noun.sql", &faults);
}

#[test]
fn the_repository_stands_alone() {
    let root = workspace();
    let mut faults = Vec::new();
    for extension in ["rs", "md", "toml", "yml", "json", "sh", "sql"] {
        for file in files(&root, extension) {
            let name = file.strip_prefix(&root).expect("inside the workspace");
            if name.ends_with("tidy.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap_or_default();
            if text.contains("../shared/design") || text.contains("../shared/research") {
                faults.push(name.display().to_string());
            }
        }
    }
    complain("nothing may need a file outside the repository", &faults);
}
