//! A dispatcher on real parts, for one test: a fresh database, a key prefix of its own in
//! Redis, an S3 endpoint in the process, HTTP on a loopback port.
//!
//! Several dispatchers can share the parts ([`TestApp::second_dispatcher`]); a [`Worker`]
//! speaks the real worker API. Nothing here waits for time to pass: [`eventually`](crate::wait::eventually) looks at a
//! real condition until it holds, up to a bound.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use clap::FromArgMatches;
use clawlink::app::{App, FIRST_WORKSPACE};
use clawlink::auth::api_key;
use clawlink::auth::principal::KeyRole;
use clawlink::auth::settings::Registration;
use clawlink::config::Settings;
use clawlink::up::data_dir::DataDir;
use clawlink::up::s3::{self, S3Server};
use clawlink::{MIGRATOR, schema, serve, workspaces};
use clawlink_shared::id::WorkspaceId;
use clawlink_shared::secret::Secret;
use clawlink_shared::settings::process_environment;
use clawlink_shared::shutdown::Shutdown;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tempfile::TempDir;
use uuid::Uuid;

use crate::wait::eventually;

/// What workers show to claim.
pub(crate) const POOL_TOKEN: &str = "pool-token-of-tests";

/// The installation's secret key.
pub(crate) const SECRET_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// One installation, with one dispatcher running.
pub(crate) struct TestApp {
    /// The first dispatcher.
    pub(crate) dispatcher: Dispatcher,
    /// A developer's API key.
    pub(crate) key: Secret,
    /// For requests of all kinds.
    pub(crate) http: reqwest::Client,
    /// The S3 endpoint; it can be killed and restarted.
    pub(crate) s3: S3Server,
    settings: Settings,
    owner_url: String,
    // Dropped last.
    _dir: TempDir,
}

/// One dispatcher process, so to speak.
pub(crate) struct Dispatcher {
    /// What it runs on.
    pub(crate) app: App,
    /// Where it listens, without a slash at the end.
    pub(crate) url: String,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl TestApp {
    /// Starts with settings that suit tests.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with changed settings.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(&postgres_server(), change).await
    }

    /// Starts on another Postgres server, given by a superuser's URL.
    pub(crate) async fn start_on(postgres: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let database = Database::create_empty(postgres).await;
        Self::start_in(database, change).await
    }

    /// Starts on a database that an earlier release left behind.
    pub(crate) async fn start_after(earlier: Database) -> Self {
        Self::start_in(earlier, |_| {}).await
    }

    async fn start_in(database: Database, change: impl FnOnce(&mut Settings)) -> Self {
        database.migrate().await;
        let dir = scratch();
        let data = DataDir::open(dir.path()).unwrap();
        let s3 = s3::start(&data).await.unwrap();
        let mut settings = settings(&database, &s3);
        change(&mut settings);
        let dispatcher = Dispatcher::start(&settings).await;
        let mut db = dispatcher.app.db.acquire().await.unwrap();
        let tuning = &settings.tuning;
        let workspace = workspaces::ensure(
            &mut db,
            FIRST_WORKSPACE,
            tuning.running_cap,
            tuning.pending_cap,
        )
        .await
        .unwrap();
        let (_, key) = api_key::create(&mut db, workspace, "test", KeyRole::Developer)
            .await
            .unwrap();
        drop(db);
        Self {
            dispatcher,
            key,
            http: reqwest::Client::new(),
            s3,
            settings,
            owner_url: database.owner_url,
            _dir: dir,
        }
    }

    /// Another replica on the same parts.
    pub(crate) async fn second_dispatcher(&self) -> Dispatcher {
        Dispatcher::start(&self.settings).await
    }

    /// Another replica with a setting changed, such as the address of a part.
    pub(crate) async fn dispatcher_with(&self, change: impl FnOnce(&mut Settings)) -> Dispatcher {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Dispatcher::start(&settings).await
    }

    /// Another replica as a process of its own, which can be killed.
    pub(crate) async fn dispatcher_process(&self) -> DispatcherProcess {
        let program = Path::new(env!("CARGO_BIN_EXE_clawlink"));
        self.dispatcher_process_of(program).await
    }

    /// The same of another build.
    pub(crate) async fn dispatcher_process_of(&self, program: &Path) -> DispatcherProcess {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let (settings, s3) = (&self.settings, &self.settings.s3);
        let text = |secret: &Option<Secret>| secret.as_ref().unwrap().expose().to_owned();
        let seconds = |duration: Duration| duration.as_secs_f64().to_string();
        let child = tokio::process::Command::new(program)
            .args(["serve", "--listen", &address])
            .env("DATABASE_URL", text(&settings.database_url))
            .env_remove("DATABASE_MIGRATION_URL")
            .env("REDIS_URL", text(&settings.redis_url))
            .env("CLAWLINK_REDIS_PREFIX", &settings.redis_prefix)
            .env("S3_ENDPOINT", s3.s3_endpoint.as_ref().unwrap())
            .envs(
                s3.s3_public_endpoint
                    .iter()
                    .map(|url| ("S3_PUBLIC_ENDPOINT", url)),
            )
            .env("S3_BUCKET", &s3.s3_bucket)
            .env("S3_REGION", &s3.s3_region)
            .env("S3_ACCESS_KEY", text(&s3.s3_access_key))
            .env("S3_SECRET_KEY", text(&s3.s3_secret_key))
            .env("CLAWLINK_SECRET_KEY", text(&settings.secret_key))
            .env("CLAWLINK_POOL_TOKEN", POOL_TOKEN)
            .env("CLAWLINK_LEASE_SECONDS", seconds(settings.tuning.lease))
            .env("CLAWLINK_TICK_SECONDS", seconds(settings.tuning.tick))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://{address}");
        eventually("the dispatcher's process is ready", async || {
            let health = self.http.get(format!("{url}/health")).send().await.ok()?;
            health.status().is_success().then_some(())
        })
        .await;
        DispatcherProcess { child, url }
    }

    /// The first dispatcher's handle to the parts.
    pub(crate) fn app(&self) -> &App {
        &self.dispatcher.app
    }

    /// Postgres.
    pub(crate) fn db(&self) -> &PgPool {
        self.dispatcher.app.db.pool()
    }

    /// Postgres as its superuser, who may do what the application may not.
    pub(crate) async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.owner_url).await.unwrap()
    }

    /// The database's address for its superuser.
    pub(crate) fn owner_url(&self) -> &str {
        &self.owner_url
    }

    /// The database's address for the application.
    pub(crate) fn database_url(&self) -> String {
        let url = self.settings.database_url.as_ref();
        url.expect("tests set it").expose().to_owned()
    }

    /// What all keys and channels of this installation begin with in Redis.
    pub(crate) fn redis_prefix(&self) -> &str {
        &self.settings.redis_prefix
    }

    /// The full address of a path at the first dispatcher.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.dispatcher.url)
    }

    /// A `GET` with the API key.
    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.url(path)).bearer_auth(self.key.expose())
    }

    /// A `POST` with the API key.
    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http
            .post(self.url(path))
            .bearer_auth(self.key.expose())
    }

    /// A `DELETE` with the API key.
    pub(crate) fn delete(&self, path: &str) -> reqwest::RequestBuilder {
        self.http
            .delete(self.url(path))
            .bearer_auth(self.key.expose())
    }

    /// A key of another role or workspace; the workspace is made if it is missing.
    pub(crate) async fn key_for(&self, workspace: &str, role: KeyRole) -> (WorkspaceId, Secret) {
        let mut db = self.db().acquire().await.unwrap();
        let tuning = &self.settings.tuning;
        let workspace =
            workspaces::ensure(&mut db, workspace, tuning.running_cap, tuning.pending_cap)
                .await
                .unwrap();
        let (_, key) = api_key::create(&mut db, workspace, "test", role)
            .await
            .unwrap();
        (workspace, key)
    }
}

impl Dispatcher {
    async fn start(settings: &Settings) -> Self {
        let app = App::connect(settings, Shutdown::new()).await.unwrap();
        app.prepare().await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(serve::serve(app.clone(), listener));
        Self { app, url, served }
    }

    /// Drains it and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        self.end().await;
    }

    /// The same for one whose place is kept.
    pub(crate) async fn end(&mut self) {
        self.app.shutdown.soft().cancel();
        (&mut self.served).await.unwrap().unwrap();
    }
}

/// A dispatcher that is a process.
pub(crate) struct DispatcherProcess {
    child: tokio::process::Child,
    /// Where it listens, without a slash at the end.
    pub(crate) url: String,
}

impl DispatcherProcess {
    /// Ends it as a crash does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// The server that `./deploy/test` starts, as its superuser.
pub(crate) fn postgres_server() -> String {
    process_environment("DATABASE_MIGRATION_URL").unwrap_or_else(|| required("DATABASE_URL"))
}

/// A variable that `./deploy/test` sets.
pub(crate) fn required(name: &str) -> String {
    process_environment(name)
        .unwrap_or_else(|| panic!("{name} is not set: run the tests with ./deploy/test"))
}

fn settings(database: &Database, s3: &S3Server) -> Settings {
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("test"));
    let matches = command.get_matches_from(["test"]);
    let mut settings = Settings::from_arg_matches(&matches).unwrap();
    settings.database_url = Some(Secret::new(database.url.clone()));
    settings.database_migration_url = None;
    settings.redis_url = Some(Secret::new(required("REDIS_URL")));
    settings.redis_prefix = format!("{}:", database.name);
    settings.s3.s3_endpoint = Some(s3.url());
    settings.s3.s3_bucket = s3::BUCKET.to_owned();
    settings.s3.s3_region = s3::REGION.to_owned();
    settings.s3.s3_access_key = Some(Secret::new(s3.access_key()));
    settings.s3.s3_secret_key = Some(s3.secret_key().clone());
    settings.secret_key = Some(Secret::new(SECRET_KEY));
    settings.pool_token = Some(Secret::new(POOL_TOKEN));
    settings.tuning.rate_per_minute = 0;
    settings.sign_in.registration = Registration::Open;
    settings.sign_in.attempts_per_address = 0;
    settings.sign_in.attempts_per_account = 0;
    settings.sign_in.password_memory_kib = 64;
    settings.sign_in.password_passes = 1;
    settings.tuning.database_connections = 8;
    settings.tuning.tick = Duration::from_millis(50);
    settings.tuning.drain = Duration::from_secs(5);
    settings
}

/// A directory that the servers' users can enter.
pub(crate) fn scratch() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("clawlink-test-")
        .tempdir()
        .unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

/// The restricted role under which all tests run the application, and its password.
pub(crate) const APPLICATION: &str = "clawlink_it";

/// An empty database: its URL for the superuser and for the application, which may nothing.
pub(crate) async fn fresh_database() -> (String, String) {
    let database = Database::create_empty(&postgres_server()).await;
    (database.owner_url, database.url)
}

/// A database of one test. It is left behind: dropping one makes all of Postgres wait for its
/// slowest background process, and `./deploy/test` throws the whole server away.
pub(crate) struct Database {
    name: String,
    /// For the application.
    url: String,
    /// For the superuser.
    pub(crate) owner_url: String,
}

impl Database {
    /// Applies what is missing of the schema, and gives the application its rights.
    pub(crate) async fn migrate(&self) {
        let mut db = PgConnection::connect(&self.owner_url).await.unwrap();
        MIGRATOR.run_direct(None, &mut db, false).await.unwrap();
        schema::grant(&mut db, APPLICATION).await.unwrap();
        db.close().await.unwrap();
    }

    /// Without any table.
    pub(crate) async fn create_empty(server: &str) -> Self {
        let name = format!("it_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(server).await.unwrap();
        // Tests of other processes make the role at the same moment.
        let role = format!(
            "do $$ begin create role {APPLICATION} login password '{APPLICATION}';
             exception when duplicate_object or unique_violation then null; end $$"
        );
        for statement in [role, format!("create database {name}")] {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut admin)
                .await
                .unwrap();
        }
        admin.close().await.unwrap();
        let (base, options) = match server.split_once('?') {
            Some((base, options)) => (base, format!("?{options}")),
            None => (server, String::new()),
        };
        let (scheme, host) = base.split_once("://").expect("a URL");
        let host = host.rsplit_once('/').expect("a URL with a database").0;
        let place = host.rsplit_once('@').map_or(host, |(_, place)| place);
        let owner_url = format!("{scheme}://{host}/{name}{options}");
        let url = format!("{scheme}://{APPLICATION}:{APPLICATION}@{place}/{name}{options}");
        Self {
            name,
            url,
            owner_url,
        }
    }
}
