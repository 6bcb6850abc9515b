//! `clawlink`: the dispatcher and its operator's tools.

mod admin;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clawlink::app::App;
use clawlink::audit::verify::{self, Anchor};
use clawlink::bench::args::BenchArgs;
use clawlink::blobs::Blobs;
use clawlink::config::{self, Listen, S3AloneSettings, S3Settings, Settings, UpSettings};
use clawlink::secrets::Keys;
use clawlink::{autoscale, bench, objects, probe, schema, serve, up};
use clawlink_shared::secret::Secret;
use clawlink_shared::settings::process_environment;
use clawlink_shared::shutdown::Shutdown;
use clawlink_shared::telemetry::{self, LogArgs};
use sqlx::{Connection, PgConnection};

/// Runs coding agents as jobs. Every option is also an environment variable, and every
/// variable NAME may be given as NAME_FILE, the path of a file that holds the value.
#[derive(Parser)]
#[command(name = "clawlink", version)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole system on this machine: Postgres, Redis, S3, dispatcher and workers. Parts that
    /// are configured are used as they are; the others are started and kept private.
    Up {
        #[command(flatten)]
        up: Box<UpSettings>,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        listen: Listen,
    },
    /// The dispatcher alone; Postgres, Redis and S3 are configured.
    Serve {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        listen: Listen,
    },
    /// The built-in S3 endpoint alone, for stacks on machines that get no other S3.
    S3 {
        #[command(flatten)]
        settings: S3AloneSettings,
    },
    /// Asks a dispatcher whether it lives: exit 0, else 1. For the health checks of containers.
    Health {
        #[command(flatten)]
        args: probe::ProbeArgs,
    },
    /// Copies session archives out of and into S3, and backups into and out of a bucket. Archives
    /// and a dump of the database are a backup.
    Objects {
        #[command(subcommand)]
        task: Objects,
    },
    /// Keeps workers of a Docker Swarm service idle within bounds; on a manager, with its socket.
    Autoscale {
        #[command(flatten)]
        args: autoscale::AutoscaleArgs,
    },
    /// Brings the database's schema up to date.
    Migrate {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        of: Installation,
        /// A database role that gets what a dispatcher needs, and may only add to the audit log
        /// [default: the role of DATABASE_URL where DATABASE_MIGRATION_URL is set too]
        #[arg(long, value_name = "NAME")]
        app_role: Option<String>,
    },
    /// Runs a command with a private Postgres, Redis and S3; for tests and development.
    Services {
        /// Where they keep their data.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// The folder of `initdb` and `postgres`.
        #[arg(long, env = "CLAWLINK_POSTGRES_BIN", value_name = "DIR")]
        postgres_bin: Option<PathBuf>,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Measures an install that runs: latencies, executions per second, memory, and beside them
    /// the limits of its machine.
    Bench {
        #[command(flatten)]
        args: Box<BenchArgs>,
    },
    /// Operator's tasks on the database.
    Admin {
        #[command(subcommand)]
        task: admin::Task,
    },
    /// The audit log.
    Audit {
        #[command(subcommand)]
        task: Audit,
    },
}

#[derive(Subcommand)]
enum Audit {
    /// Looks for altered, removed, inserted and moved entries. Says the first bad position and
    /// exits with 1; else prints the chain's end, to be kept where this database's masters
    /// cannot write. Needs the secret key of the dispatchers.
    Verify {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        of: Installation,
        /// What an earlier run printed as the chain's end: also finds that later entries were
        /// cut off.
        #[arg(long, value_name = "COUNT:HASH")]
        expect: Option<Anchor>,
        /// Secret keys of earlier times, separated by commas: links that were made with them
        /// are checked too.
        #[arg(long, env = "CLAWLINK_AUDIT_OLDER_KEYS", hide_env_values = true)]
        older_keys: Option<Secret>,
    },
}

#[derive(Subcommand)]
enum Objects {
    /// Writes all objects to standard output, as a tar archive.
    Export {
        #[command(flatten)]
        s3: S3Settings,
        /// Leave out the archives and logs whose keys stand on standard input, one a line: what
        /// an earlier export has.
        #[arg(long)]
        except_stdin: bool,
    },
    /// Writes what such an archive on standard input holds into the bucket.
    Import {
        #[command(flatten)]
        s3: S3Settings,
    },
    /// Writes standard input, of any size, into the bucket as one object.
    Put {
        #[command(flatten)]
        s3: S3Settings,
        /// The object's name.
        key: String,
    },
    /// Writes one object of the bucket to standard output.
    Get {
        #[command(flatten)]
        s3: S3Settings,
        /// The object's name.
        key: String,
    },
}

/// Where the database is, if not in `DATABASE_URL`.
#[derive(Args)]
struct Installation {
    /// The data directory of `clawlink up`, whose Postgres is used; it must be running.
    #[arg(long, env = "CLAWLINK_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Installation {
    /// As whoever may do most: the schema's owner if its URL is known.
    fn url(&self, settings: &Settings) -> anyhow::Result<Secret> {
        let configured = settings.database_url.as_ref();
        let configured = settings.database_migration_url.as_ref().or(configured);
        match (configured, &self.data_dir) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(dir)) => bench::args::database_url(dir)?
                .with_context(|| format!("{} has no Postgres", dir.display())),
            (None, None) => Settings::required(&settings.database_url, "DATABASE_URL").cloned(),
        }
    }

    async fn connect(&self, settings: &Settings) -> anyhow::Result<PgConnection> {
        PgConnection::connect(self.url(settings)?.expose())
            .await
            .context("connect to Postgres")
    }

    /// The role that dispatchers use, where it is another than the schema's owner.
    async fn application(&self, settings: &Settings) -> anyhow::Result<Option<String>> {
        match (&settings.database_url, &settings.database_migration_url) {
            (Some(url), Some(_)) => schema::role_of(url).await.map(Some),
            (None, None) => Ok(Some(up::postgres::APPLICATION.to_owned())),
            _ => Ok(None),
        }
    }

    fn secret_key(&self, settings: &Settings) -> anyhow::Result<Secret> {
        match (&settings.secret_key, &self.data_dir) {
            (None, Some(dir)) => bench::args::secret_key(dir),
            _ => Settings::required(&settings.secret_key, "CLAWLINK_SECRET_KEY").cloned(),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let command = match config::with_fallbacks(Cli::command(), &process_environment) {
        Ok(command) => command,
        Err(error) => {
            // How to log is not known yet.
            eprintln!("{:#}", error.context("read settings"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut cli =
        Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    if let Command::Up { up, .. } = &mut cli.command {
        up.worker_log.clone_from(&cli.log.log);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start runtime")?;
    runtime.block_on(async {
        let traces = telemetry::init(&cli.log, "clawlink");
        let ended = Box::pin(execute(cli.command)).await;
        traces.finish().await;
        ended
    })
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up {
            up,
            settings,
            listen,
        } => up::run::run(&up, settings, listen.listen).await?,
        Command::Services {
            data_dir,
            postgres_bin,
            command,
        } => {
            let code = up::services::run(&data_dir, postgres_bin.as_deref(), &command).await?;
            return Ok(ExitCode::from(code));
        }
        Command::Serve { settings, listen } => {
            let signals = Shutdown::new();
            signals.on_signals().context("watch signals")?;
            let app = App::connect(&settings, Shutdown::new()).await?;
            app.prepare().await?;
            app.db.warm().await;
            let listener = tokio::net::TcpListener::bind(listen.listen)
                .await
                .with_context(|| format!("listen on {}", listen.listen))?;
            tracing::info!(address = %listener.local_addr()?, "listening");
            serve::serve_until(signals, app, listener).await?;
        }
        Command::S3 { settings } => up::s3_alone::run(&settings).await?,
        Command::Autoscale { args } => Box::pin(autoscale::run(&args)).await?,
        Command::Health { args } => {
            if let Err(error) = probe::probe(&args).await {
                say(&format!("{error:#}"));
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Objects {
            task: Objects::Export { s3, except_stdin },
        } => {
            let mut except = objects::Keys::new();
            if except_stdin {
                except = objects::read_keys(tokio::io::stdin()).await?;
            }
            let blobs = Blobs::new(&s3)?;
            let done = objects::export(&blobs, &except, tokio::io::stdout()).await?;
            tracing::info!(objects = done.objects, bytes = done.bytes, "exported");
        }
        Command::Objects {
            task: Objects::Import { s3 },
        } => {
            let blobs = Blobs::new(&s3)?;
            blobs.ensure_bucket().await?;
            let done = objects::import(&blobs, tokio::io::stdin()).await?;
            tracing::info!(objects = done.objects, bytes = done.bytes, "imported");
        }
        Command::Objects {
            task: Objects::Put { s3, key },
        } => {
            let blobs = Blobs::new(&s3)?;
            blobs.ensure_bucket().await?;
            let bytes = objects::put(&blobs, &key, tokio::io::stdin()).await?;
            tracing::info!(key, bytes, "written");
        }
        Command::Objects {
            task: Objects::Get { s3, key },
        } => {
            let blobs = Blobs::new(&s3)?;
            let bytes = objects::get(&blobs, &key, tokio::io::stdout()).await?;
            tracing::info!(key, bytes, "read");
        }
        Command::Migrate {
            settings,
            of,
            app_role,
        } => {
            let mut db = of.connect(&settings).await?;
            let role = match app_role {
                Some(role) => Some(role),
                None => of.application(&settings).await?,
            };
            schema::migrate(&mut db, role.as_deref()).await?;
        }
        Command::Bench { args } => {
            let json = args.json;
            let report = Box::pin(bench::run(*args)).await?;
            say(&if json {
                report.to_json()?
            } else {
                report.to_text()
            });
        }
        Command::Admin { task } => Box::pin(admin::run(task)).await?,
        Command::Audit { task } => return Box::pin(check_audit(task)).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Failure is for a log that was tampered with.
async fn check_audit(task: Audit) -> anyhow::Result<ExitCode> {
    let Audit::Verify {
        settings,
        of,
        expect,
        older_keys,
    } = task;
    let keys = Keys::derive(&of.secret_key(&settings)?, settings.secret_key_old.as_ref())?;
    let keys = match &older_keys {
        Some(older) => keys.with_older(older)?,
        None => keys,
    };
    let mut db = of.connect(&settings).await?;
    match verify::verify(&mut db, &keys, expect).await? {
        Ok(report) => {
            let waiting = report.waiting;
            say(&format!("sound; {waiting} entries wait for their link"));
            say(&report.anchor.to_string());
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            say(&fault.to_string());
            Ok(ExitCode::FAILURE)
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the command's result belongs on standard output"
)]
fn say(line: &str) {
    println!("{line}");
}
