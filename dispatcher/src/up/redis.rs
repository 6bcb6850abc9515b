//! A private Redis (or Valkey): the system's own program on a loopback port.
//!
//! It keeps nothing on disk, because everything in it is rebuilt from Postgres; a restart is
//! therefore the same as a flush. Its settings, the password among them, go in by a pipe: they are
//! neither in a file nor on a command line.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use clawlink_shared::secret::Secret;
use rustix::process::Signal;

use super::data_dir::DataDir;
use super::identity::Identity;
use super::programs::find_redis;
use super::supervise::{Process, end_leftovers, start_on_own_port};

/// Start takes some 40 ms.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// There is nothing to save.
const STOP: Duration = Duration::from_secs(5);

/// A running private server. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    process: Process,
    port: u16,
}

#[derive(Debug)]
struct Server {
    data_dir: DataDir,
    program: PathBuf,
    user: Identity,
    dir: PathBuf,
    password: Secret,
}

/// Starts the server of a data directory.
pub async fn start(data_dir: &DataDir) -> Result<Redis> {
    let user = Identity::server(&["redis", "valkey"]);
    let server = Server {
        data_dir: data_dir.clone(),
        program: find_redis()?,
        user,
        dir: data_dir.private("redis", &user)?,
        password: data_dir.secret("redis-password")?,
    };
    let start_on = async |port| server.start_on(port).await;
    let (process, port) = start_on_own_port(data_dir, "redis", start_on).await?;
    Ok(Redis {
        server,
        process,
        port,
    })
}

impl Redis {
    /// A connection URL with the password; it stays the same over [`Redis::restart`].
    pub fn url(&self) -> String {
        self.server.url(self.port)
    }

    /// Stops it in order.
    pub async fn stop(&mut self) -> Result<()> {
        self.process
            .stop(&[(Signal::TERM, STOP)])
            .await
            .context("stop Redis")
    }

    /// Kills it as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Stops it if it runs, and starts it again, empty, on the same port.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.ended().is_none() {
            self.stop().await?;
        }
        self.process = self.server.start_on(self.port).await?;
        Ok(())
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// True once the process has ended without having been asked.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }
}

impl Server {
    fn url(&self, port: u16) -> String {
        format!("redis://:{}@127.0.0.1:{port}/", self.password.expose())
    }

    async fn start_on(&self, port: u16) -> Result<Process> {
        let names = ["redis-server", "valkey-server"];
        end_leftovers(&self.dir, &names, Signal::TERM, STOP).await;
        let mut command = self.user.command("KILL", &self.program);
        command
            .arg("-")
            .current_dir(&self.dir)
            .stdin(Stdio::piped());
        let log = self
            .data_dir
            .private("logs", &Identity::current())?
            .join("redis.log");
        let mut process = Process::start("Redis", command, &log).await?;
        let settings = format!(
            "bind 127.0.0.1\nport {port}\nrequirepass {}\nsave \"\"\nappendonly no\ndaemonize no\n\
             protected-mode yes\nmaxmemory-policy noeviction\n",
            self.password.expose()
        );
        process.feed(&settings).await?;
        let client = redis::Client::open(self.url(port)).context("parse Redis URL")?;
        let answers = async || ping(&client).await.is_ok();
        process.ready(READY_WITHIN, &log, answers).await?;
        Ok(process)
    }
}

async fn ping(client: &redis::Client) -> redis::RedisResult<()> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("PING").query_async(&mut connection).await
}
