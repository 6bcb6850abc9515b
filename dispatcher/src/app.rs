//! What every handler and loop shares: handles to the parts, nothing that another replica
//! would miss.

use std::ops::Deref;
use std::sync::Arc;

use clawlink_shared::secret::Secret;
use clawlink_shared::shutdown::Shutdown;
use sqlx::Connection;

use crate::audit::Denials;
use crate::auth::limits::Attempts;
use crate::auth::oidc::Providers;
use crate::auth::password::Passwords;
use crate::auth::settings::SignInSettings;
use crate::auth::token::TokenKeys;
use crate::blobs::Blobs;
use crate::bus::Bus;
use crate::config::{Settings, Tuning};
use crate::db::Db;
use crate::executions::control::Recent;
use crate::executions::reconcile::Rebuild;
use crate::github::Github;
use crate::http::limit::Limiter;
use crate::outbox::Lanes;
use crate::secrets::Keys;
use crate::usage::prices::Prices;
use crate::{policies, schema, workspaces};

/// Slug of the workspace that exists from the first start.
pub const FIRST_WORKSPACE: &str = "default";

/// The application; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] holds.
pub struct Parts {
    /// Postgres: the truth.
    pub db: Db,
    /// Redis: queue, wake-ups, fan-out.
    pub bus: Bus,
    /// S3: session archives and archived logs.
    pub blobs: Blobs,
    /// GitHub: pull requests.
    pub github: Github,
    /// Keys derived from the installation's secret key.
    pub keys: Keys,
    /// Signs and reads the tokens of people.
    pub tokens: TokenKeys,
    /// What credentials gave in the last seconds.
    pub rights: crate::auth::Memory,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// How often somebody may try to sign in.
    pub attempts: Attempts,
    /// Where people may sign in instead.
    pub providers: Providers,
    /// How people sign in.
    pub sign_in: SignInSettings,
    /// What workers show to claim.
    pub pool_token: Secret,
    /// Bounds and times.
    pub tuning: Tuning,
    /// Soft and hard stop, and the tasks that draining waits for.
    pub shutdown: Shutdown,
    /// This process among its replicas; new at every start.
    pub replica: uuid::Uuid,
    /// What this replica does after its commits.
    pub lanes: Lanes,
    /// How many requests each caller may make.
    pub limiter: Limiter,
    /// Wakes the reconciler.
    pub rebuild: Rebuild,
    /// What this replica saw last of executions that it accepted or that workers hold.
    pub recent: Recent,
    /// Refused strangers who are not yet counted in Postgres.
    pub denials: Denials,
    /// The schema owner's URL, for [`App::prepare`].
    owner_url: Option<Secret>,
    /// What policies say, for a few seconds.
    pub policies: policies::Cache,
    /// What tokens cost where the agent does not say.
    pub prices: Prices,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Connects to the parts. Postgres must answer; Redis and S3 may be away for now.
    pub async fn connect(settings: &Settings, shutdown: Shutdown) -> anyhow::Result<Self> {
        let database_url = Settings::required(&settings.database_url, "DATABASE_URL")?;
        let redis_url = Settings::required(&settings.redis_url, "REDIS_URL")?;
        let secret_key = Settings::required(&settings.secret_key, "CLAWLINK_SECRET_KEY")?;
        let pool_token = Settings::required(&settings.pool_token, "CLAWLINK_POOL_TOKEN")?.clone();
        let replica = uuid::Uuid::new_v4();
        let db = Db::connect(database_url, settings.tuning.database_connections).await?;
        let bus = Bus::connect(redis_url, &settings.redis_prefix, replica, &shutdown)?;
        let blobs = Blobs::new(&settings.s3)?;
        let keys = Keys::derive(secret_key, settings.secret_key_old.as_ref())?;
        Ok(Self(Arc::new(Parts {
            db,
            bus,
            blobs,
            github: Github::new(&settings.github)?,
            tokens: TokenKeys::of(&keys),
            keys,
            rights: crate::auth::Memory::default(),
            passwords: Passwords::new(&settings.sign_in)?,
            attempts: Attempts::new(&settings.sign_in),
            providers: Providers::new(&settings.sign_in, &settings.github)?,
            sign_in: settings.sign_in.clone(),
            pool_token,
            tuning: settings.tuning.clone(),
            shutdown,
            replica,
            limiter: Limiter::new(settings.tuning.rate_per_minute),
            lanes: Lanes::default(),
            rebuild: Rebuild::default(),
            recent: Recent::default(),
            denials: Denials::default(),
            owner_url: settings.database_migration_url.clone(),
            policies: policies::Cache::default(),
            prices: Prices::load(settings.tuning.prices.as_deref())?,
        })))
    }

    /// Whether Postgres answers.
    pub async fn database_is_up(&self) -> bool {
        match self.db.acquire().await {
            Ok(mut db) => db.ping().await.is_ok(),
            Err(_) => false,
        }
    }

    /// Brings the schema up to date, makes the first workspace and the bucket. S3 may be away:
    /// then the bucket is made when it is first needed.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        schema::prepare(self.db.pool(), self.owner_url.as_ref()).await?;
        let mut db = self.db.acquire().await?;
        let tuning = &self.tuning;
        workspaces::ensure(
            &mut db,
            FIRST_WORKSPACE,
            tuning.running_cap,
            tuning.pending_cap,
        )
        .await?;
        if let Err(error) = self.blobs.ensure_bucket().await {
            tracing::warn!(error = format!("{error:#}"), "S3 bucket not ready");
        }
        Ok(())
    }
}
