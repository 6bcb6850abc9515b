//! The README's table of all settings is what the programs' own `--help` says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const CLAWLINK: &str = env!("CARGO_BIN_EXE_clawlink");
/// Commands whose settings an operator keeps (`migrate` takes those of `serve`); what only a
/// person types is in their `--help`.
const COMMANDS: [&str; 5] = ["up", "serve", "s3", "autoscale", "audit verify"];

/// One option, as `--help` describes it.
#[derive(Default)]
struct Setting {
    /// What it is, in one line.
    about: String,
    /// The values it may have, if they have names.
    values: Vec<String>,
    default: String,
    /// The programs that take it.
    programs: Vec<String>,
}

#[test]
fn the_readme_lists_every_setting() {
    let worker = Path::new(CLAWLINK).with_file_name("clawlink-worker");
    let mut settings = BTreeMap::new();
    for command in COMMANDS {
        let help = help(Command::new(CLAWLINK).args(command.split(' ')));
        read(&mut settings, command, &help);
    }
    read(&mut settings, "worker", &help(&mut Command::new(worker)));
    assert!(settings.len() > 80, "{} are read", settings.len());

    let table = table(&settings);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(file).unwrap();
    let printed = format!("<!-- settings -->\n{table}<!-- /settings -->");
    assert!(text.contains(&printed), "README.md should hold:\n{printed}");
}

/// The long help, without what is set here.
fn help(command: &mut Command) -> String {
    let command = command.arg("--help").env_clear();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Reads blocks of an option, its description, its values, `[env: NAME=]` and `[default: …]`.
fn read(settings: &mut BTreeMap<String, Setting>, program: &str, help: &str) {
    let mut current = Setting::default();
    let mut name = String::new();
    for line in help.lines().map(str::trim) {
        if line.starts_with("--") || line.starts_with("-h,") || line.starts_with("-V,") {
            current = Setting::default();
        } else if let Some(env) = tag(line, "env: ") {
            name = env.split('=').next().unwrap_or_default().to_owned();
            let setting = settings
                .entry(name.clone())
                .or_insert_with(|| std::mem::take(&mut current));
            setting.programs.push(program.to_owned());
        } else if let Some(default) = tag(line, "default: ") {
            if let Some(setting) = settings.get_mut(&name) {
                setting.default = default.to_owned();
            }
        } else if let Some((value, _)) = line.strip_prefix("- ").and_then(|v| v.split_once(':')) {
            current.values.push(format!("`{value}`"));
        } else if !line.is_empty() && !line.starts_with('[') && line != "Possible values:" {
            let space = if current.about.is_empty() { "" } else { " " };
            current.about.push_str(space);
            current.about.push_str(line);
        }
    }
}

fn tag<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix('[')?
        .strip_prefix(name)?
        .strip_suffix(']')
}

fn table(settings: &BTreeMap<String, Setting>) -> String {
    let mut table = String::from("| variable | default | of | |\n|---|---|---|---|\n");
    for (name, setting) in settings {
        let default = match setting.default.as_str() {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let values = match setting.values.as_slice() {
            [] => String::new(),
            values => format!(": {}", values.join(", ")),
        };
        let (programs, about) = (setting.programs.join(", "), &setting.about);
        let _ = writeln!(
            table,
            "| `{name}` | {default} | {programs} | {about}{values} |"
        );
    }
    table
}
