//! A private PostgreSQL server: the system's own programs on a loopback port.
//!
//! It is Postgres as everywhere else: `fsync` stays on, clients give a password (SCRAM), and only
//! memory settings are small. As root it runs as the user `postgres`. Data that exists is never
//! initialised again: a cluster is made beside its place and moved there when it is whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clawlink_shared::secret::Secret;
use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::data_dir::{DataDir, write_private};
use super::identity::Identity;
use super::programs::{PostgresPrograms, find_postgres};
use super::supervise::{Process, end_leftovers, log_tail, no_input, start_on_own_port};

/// The superuser of the private server, who owns the schema, and the name of its one database.
const NAME: &str = "clawlink";
/// The role of the application: no superuser, owner of nothing.
pub const APPLICATION: &str = "clawlink_app";
/// Recovery after a crash is bounded by `max_wal_size`, so this is generous.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A fast shutdown (SIGINT) writes a checkpoint.
const STOP_FAST: Duration = Duration::from_secs(30);
/// An immediate one (SIGQUIT) writes nothing.
const STOP_NOW: Duration = Duration::from_secs(5);

const SETTINGS: [&str; 11] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=32MB",
    "max_connections=200",
    "wal_level=minimal",
    "max_wal_senders=0",
    "jit=off",
    "logging_collector=off",
    "log_destination=stderr",
    "log_min_messages=warning",
    "timezone=UTC",
];

/// A running private server. Dropping it kills it; [`Postgres::stop`] ends it properly.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    process: Process,
    port: u16,
}

/// What does not change from start to start.
#[derive(Debug)]
struct Server {
    data_dir: DataDir,
    programs: PostgresPrograms,
    user: Identity,
    cluster: PathBuf,
    password: Secret,
    application_password: Secret,
}

/// Starts the server of a data directory, made at the first call. `programs` is the folder of
/// `initdb` and `postgres` if it is not to be searched for.
pub async fn start(data_dir: &DataDir, programs: Option<&Path>) -> Result<Postgres> {
    let user = Identity::server(&["postgres"]);
    let dir = data_dir.private("postgres", &user)?;
    let cluster = dir.join("data");
    let major = std::fs::read_to_string(cluster.join("PG_VERSION")).ok();
    let major = major.and_then(|text| text.trim().parse().ok());
    let server = Server {
        data_dir: data_dir.clone(),
        programs: find_postgres(programs, major)?,
        user,
        cluster,
        password: data_dir.secret("postgres-password")?,
        application_password: data_dir.secret("postgres-app-password")?,
    };
    if major.is_none() {
        server
            .initialise(&dir)
            .await
            .context("initialise PostgreSQL")?;
    }
    let start_on = async |port| server.start_on(port).await;
    let (process, port) = start_on_own_port(data_dir, "postgres", start_on).await?;
    let postgres = Postgres {
        server,
        process,
        port,
    };
    postgres.ensure_database().await?;
    postgres.ensure_application().await?;
    Ok(postgres)
}

impl Postgres {
    /// The application's connection URL with its password; it stays the same over
    /// [`Postgres::restart`].
    pub fn url(&self) -> String {
        let password = self.server.application_password.expose();
        format!(
            "postgres://{APPLICATION}:{password}@127.0.0.1:{}/{NAME}",
            self.port
        )
    }

    /// The same for the superuser, who migrates.
    pub fn owner_url(&self) -> String {
        self.server.url(self.port, NAME)
    }

    /// Stops it in order: clients are cut, everything is on disk.
    pub async fn stop(&mut self) -> Result<()> {
        let steps = [(Signal::INT, STOP_FAST), (Signal::QUIT, STOP_NOW)];
        self.process.stop(&steps).await.context("stop PostgreSQL")
    }

    /// Kills it as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Stops it if it runs, and starts it again on the same port.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.ended().is_none() {
            self.stop().await?;
        }
        self.process = self.server.start_on(self.port).await?;
        Ok(())
    }

    /// The process id of the postmaster, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// True once the process has ended without having been asked.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    async fn ensure_database(&self) -> Result<()> {
        let mut admin = PgConnection::connect(&self.server.url(self.port, "postgres"))
            .await
            .context("connect to PostgreSQL")?;
        let exists: bool = sqlx::query_scalar(
            "select exists (select from pg_database where datname = 'clawlink')",
        )
        .fetch_one(&mut admin)
        .await
        .context("look for the database")?;
        if !exists {
            sqlx::query("create database clawlink")
                .execute(&mut admin)
                .await
                .context("create the database")?;
        }
        admin.close().await.context("close connection")
    }

    /// Makes the application's role, also in data directories that are older than it.
    async fn ensure_application(&self) -> Result<()> {
        let mut admin = PgConnection::connect(&self.owner_url())
            .await
            .context("connect to PostgreSQL")?;
        let exists: bool = sqlx::query_scalar(
            "select exists (select from pg_roles where rolname = 'clawlink_app')",
        )
        .fetch_one(&mut admin)
        .await
        .context("look for the application's role")?;
        if !exists {
            sqlx::query("create role clawlink_app login")
                .execute(&mut admin)
                .await
                .context("create the application's role")?;
        }
        // The password file may have been made anew; ours holds no quotes.
        let password = self.server.application_password.expose();
        sqlx::query(AssertSqlSafe(format!(
            "alter role {APPLICATION} password '{password}'"
        )))
        .execute(&mut admin)
        .await
        .context("set the application's password")?;
        admin.close().await.context("close connection")
    }
}

impl Server {
    fn url(&self, port: u16, database: &str) -> String {
        format!(
            "postgres://{NAME}:{}@127.0.0.1:{port}/{database}",
            self.password.expose()
        )
    }

    async fn initialise(&self, dir: &Path) -> Result<()> {
        let fresh = dir.join("data.new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).context("remove a half-made cluster")?;
        }
        let password_file = dir.join("password");
        write_private(&password_file, self.password.expose())?;
        std::os::unix::fs::chown(&password_file, Some(self.user.uid), Some(self.user.gid))
            .context("hand over the password file")?;
        let mut command = self.user.command("KILL", self.programs.program("initdb"));
        command
            .args([
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--username",
                NAME,
            ])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(&fresh)
            .current_dir(dir);
        no_input(&mut command);
        let log = self.log()?;
        let made = Process::start("initdb", command, &log)
            .await?
            .finish()
            .await;
        std::fs::remove_file(&password_file).context("remove the password file")?;
        if !made? {
            bail!("initdb failed: {}", log_tail(&log));
        }
        std::fs::rename(&fresh, &self.cluster).context("move the cluster to its place")
    }

    fn log(&self) -> Result<PathBuf> {
        Ok(self
            .data_dir
            .private("logs", &Identity::current())?
            .join("postgres.log"))
    }

    /// Starts the server and waits until it answers. A lock file of a crashed run goes away
    /// first: nobody else may use this directory, so whatever process it names is not ours.
    async fn start_on(&self, port: u16) -> Result<Process> {
        end_leftovers(&self.cluster, &["postgres"], Signal::QUIT, STOP_NOW).await;
        let lock = self.cluster.join("postmaster.pid");
        if lock.exists() {
            std::fs::remove_file(&lock).context("remove the lock of a crashed server")?;
        }
        let mut command = self.user.command("INT", self.programs.program("postgres"));
        command
            .arg("-D")
            .arg(&self.cluster)
            .current_dir(&self.cluster);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(["-c", &format!("port={port}")]);
        no_input(&mut command);
        let log = self.log()?;
        let mut process = Process::start("PostgreSQL", command, &log).await?;
        let url = self.url(port, "postgres");
        let answers = async || match PgConnection::connect(&url).await {
            Ok(connection) => connection.close().await.is_ok(),
            Err(_) => false,
        };
        process.ready(READY_WITHIN, &log, answers).await?;
        Ok(process)
    }
}
