//! Where a setting comes from that neither a flag nor its variable gives: a file that `NAME_FILE`
//! names, and variables of earlier systems.

use clawlink_shared::settings::{self, Fallbacks, Lookup};
use clawlink_shared::worker_args::PROXY_NAMES;

/// Variables of earlier systems, and the settings they fill when the new name is not set.
const OLD_NAMES: &[(&str, &str)] = &[
    ("MINIO_ACCESS_KEY", "S3_ACCESS_KEY"),
    ("MINIO_ROOT_USER", "S3_ACCESS_KEY"),
    ("MINIO_SECRET_KEY", "S3_SECRET_KEY"),
    ("MINIO_ROOT_PASSWORD", "S3_SECRET_KEY"),
    ("MINIO_BUCKET", "S3_BUCKET"),
    ("MINIO_REGION", "S3_REGION"),
    ("CODING_ASSISTANT_PROVIDER", "CLAWLINK_DEFAULT_AGENT"),
    (
        "CODING_ASSISTANT_AUTHENTICATION",
        "CLAWLINK_DEFAULT_AGENT_CREDENTIAL",
    ),
    PROXY_NAMES[0],
    PROXY_NAMES[1],
    PROXY_NAMES[2],
];

/// Gives the command what stands in `NAME_FILE` files and in variables of earlier systems.
/// Errors name the unreadable file.
pub fn with_fallbacks(command: clap::Command, lookup: Lookup) -> anyhow::Result<clap::Command> {
    let fallbacks = Fallbacks {
        lookup,
        old_names: OLD_NAMES,
        derived: &derived,
    };
    Ok(settings::with_fallbacks(command, &fallbacks)?)
}

/// Settings that older variables only give together.
fn derived(name: &str, lookup: Lookup) -> Option<String> {
    match name {
        // MINIO_ENDPOINT has no scheme; MINIO_USE_SSL says which.
        "S3_ENDPOINT" => lookup("MINIO_ENDPOINT").map(|host| {
            let tls = lookup("MINIO_USE_SSL").is_some_and(|flag| flag == "true" || flag == "1");
            if host.contains("://") {
                host
            } else {
                format!("{}://{host}", if tls { "https" } else { "http" })
            }
        }),
        "CLAWLINK_LISTEN" => lookup("PORT").map(|port| format!("0.0.0.0:{port}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::super::Settings;
    use super::with_fallbacks;

    fn parse(environment: &[(&str, &str)]) -> Settings {
        let lookup = |name: &str| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let command = Settings::augment_args(Command::new("test"));
        let command = with_fallbacks(command, &lookup).expect("fallbacks apply");
        // The process's own environment must not show through.
        let command = command.mut_args(|argument| argument.env(clap::builder::Resettable::Reset));
        let matches = command.get_matches_from(["test"]);
        Settings::from_arg_matches(&matches).expect("arguments parse")
    }

    #[test]
    fn old_minio_names_fill_the_s3_settings() {
        let settings = parse(&[
            ("MINIO_ENDPOINT", "minio:9000"),
            ("MINIO_USE_SSL", "true"),
            ("MINIO_ACCESS_KEY", "ak"),
            ("MINIO_BUCKET", "old"),
        ]);
        assert_eq!(
            settings.s3.s3_endpoint.as_deref(),
            Some("https://minio:9000")
        );
        assert_eq!(settings.s3.s3_access_key.expect("key").expose(), "ak");
        assert_eq!(settings.s3.s3_bucket, "old");
    }

    #[test]
    fn help_shows_no_value_that_came_from_elsewhere() {
        let lookup = |name: &str| (name == "MINIO_SECRET_KEY").then(|| "hidden-value".to_owned());
        let command = Settings::augment_args(Command::new("test"));
        let mut command = with_fallbacks(command, &lookup).expect("fallbacks apply");
        let help = command.render_long_help().to_string();
        assert!(help.contains("S3_SECRET_KEY") && !help.contains("hidden-value"));
    }

    #[test]
    fn a_file_gives_a_secret_without_its_newline() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), "postgres://u:p@h/d\n").expect("write");
        let path = file.path().to_str().expect("utf-8 path");
        let settings = parse(&[("DATABASE_URL_FILE", path)]);
        assert_eq!(
            settings.database_url.expect("url").expose(),
            "postgres://u:p@h/d"
        );
    }
}
