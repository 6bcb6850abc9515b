//! `clawlink`: the dispatcher and its operator's tools.

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clawlink::app::App;
use clawlink::auth::principal::KeyRole;
use clawlink::config::{self, Listen, Settings};
use clawlink::{MIGRATOR, auth, serve, workspaces};
use clawlink_shared::shutdown::Shutdown;
use clawlink_shared::telemetry::{self, LogArgs};

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
    /// The dispatcher alone; Postgres, Redis and S3 are configured.
    Serve {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        listen: Listen,
    },
    /// Brings the database's schema up to date.
    Migrate {
        #[command(flatten)]
        settings: Settings,
    },
    /// Operator's tasks on the database.
    Admin {
        #[command(subcommand)]
        task: Admin,
    },
}

#[derive(Subcommand)]
enum Admin {
    /// Makes an API key and prints it once.
    CreateKey {
        #[command(flatten)]
        settings: Settings,
        /// The workspace's slug; made if it does not exist.
        #[arg(long, default_value = "default")]
        workspace: String,
        /// A name for lists and audit.
        #[arg(long)]
        name: String,
        /// What the key may do.
        #[arg(long, value_enum, default_value = "developer")]
        role: KeyRole,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let command = config::with_fallbacks(Cli::command(), &config::process_environment)?;
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    telemetry::init(&cli.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start runtime")?;
    runtime.block_on(execute(cli.command))
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { settings, listen } => {
            let shutdown = Shutdown::new();
            shutdown.on_signals().context("watch signals")?;
            let app = App::connect(&settings, shutdown).await?;
            app.prepare().await?;
            let listener = tokio::net::TcpListener::bind(listen.listen)
                .await
                .with_context(|| format!("listen on {}", listen.listen))?;
            tracing::info!(address = %listener.local_addr()?, "listening");
            serve::serve(app, listener).await
        }
        Command::Migrate { settings } => {
            let url = Settings::required(&settings.database_url, "DATABASE_URL")?;
            let db = sqlx::PgPool::connect(url.expose())
                .await
                .context("connect to Postgres")?;
            MIGRATOR.run(&db).await.context("apply migrations")
        }
        Command::Admin {
            task:
                Admin::CreateKey {
                    settings,
                    workspace,
                    name,
                    role,
                },
        } => {
            let url = Settings::required(&settings.database_url, "DATABASE_URL")?;
            let db = sqlx::PgPool::connect(url.expose())
                .await
                .context("connect to Postgres")?;
            let mut transaction = db.begin().await?;
            let tuning = &settings.tuning;
            let workspace = workspaces::store::ensure(
                &mut transaction,
                &workspace,
                tuning.running_cap,
                tuning.pending_cap,
            )
            .await?;
            let (_, key) = auth::api_key::create(&mut transaction, workspace, &name, role).await?;
            transaction.commit().await?;
            say(key.expose());
            Ok(())
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
