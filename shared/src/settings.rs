//! Settings of both binaries: a flag, else the variable `NAME`, else the file that `NAME_FILE`
//! names (Docker secrets), else a variable of an earlier system.
//!
//! What comes from a file or an older name becomes the argument's default, so that a flag and
//! `NAME` still win; it is never shown by `--help`, because it may be a secret.

use std::io;

use clap::Command;
use clap::builder::Resettable;

/// Looks up one variable; the seam that lets tests give an environment of their own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where else a setting may come from.
pub struct Fallbacks<'a> {
    /// The environment.
    pub lookup: Lookup<'a>,
    /// Pairs of an older variable and the newer one that it fills.
    pub old_names: &'a [(&'a str, &'a str)],
    /// Values that older variables only give together; asked last, by the newer name.
    pub derived: &'a dyn Fn(&str, Lookup) -> Option<String>,
}

/// A file that a `NAME_FILE` variable names cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read the file {path}, which {variable} names")]
pub struct UnreadableSetting {
    variable: String,
    path: String,
    source: io::Error,
}

/// The process's environment; an empty variable counts as unset.
#[expect(
    clippy::disallowed_methods,
    reason = "the one reader of the environment"
)]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a variable is set, but to nothing.
#[expect(
    clippy::disallowed_methods,
    reason = "the one reader of the environment"
)]
fn is_empty(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// Gives every argument of the command and its subcommands that has a variable, but no value
/// there, what the fallbacks know.
pub fn with_fallbacks(
    mut command: Command,
    fallbacks: &Fallbacks,
) -> Result<Command, UnreadableSetting> {
    let mut found = Vec::new();
    let mut empty = Vec::new();
    for argument in command.get_arguments() {
        let name = argument.get_env().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| (fallbacks.lookup)(name).is_none()) else {
            continue;
        };
        if is_empty(name) {
            empty.push(argument.get_id().clone());
        }
        if let Some(value) = fallbacks.value(name)? {
            found.push((argument.get_id().clone(), value));
        }
    }
    // Clap reads the environment itself, and would take an empty variable as a value.
    for id in empty {
        command = command.mut_arg(id, |argument| argument.env(Resettable::Reset));
    }
    for (id, value) in found {
        // A default is not an explicit value, so it alone would not satisfy `required`.
        command = command.mut_arg(id, |argument| {
            argument
                .required(false)
                .default_value(value)
                .hide_default_value(true)
        });
    }
    let subcommands: Vec<Command> = command.get_subcommands().cloned().collect();
    for subcommand in subcommands {
        let name = subcommand.get_name().to_owned();
        let filled = with_fallbacks(subcommand, fallbacks)?;
        command = command.mut_subcommand(name, |_| filled);
    }
    Ok(command)
}

impl Fallbacks<'_> {
    /// The value of a variable that is not set itself.
    fn value(&self, name: &str) -> Result<Option<String>, UnreadableSetting> {
        let older = self.old_names.iter().filter(|(_, new)| *new == name);
        for candidate in std::iter::once(name).chain(older.map(|(old, _)| *old)) {
            if let Some(value) = (self.lookup)(candidate) {
                return Ok(Some(value));
            }
            let variable = format!("{candidate}_FILE");
            if let Some(path) = (self.lookup)(&variable) {
                return match std::fs::read_to_string(&path) {
                    Ok(text) => Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned())),
                    Err(source) => Err(UnreadableSetting {
                        variable,
                        path,
                        source,
                    }),
                };
            }
        }
        Ok((self.derived)(name, self.lookup))
    }
}
