//! The private parts of one installation together: those that nobody configured.
//!
//! A part that ends by itself is started again; a part that was configured is never touched.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clawlink_shared::secret::Secret;

use super::data_dir::DataDir;
use super::postgres::{self, Postgres};
use super::redis::{self, Redis};
use super::s3::{self, S3Server};
use crate::config::Settings;

/// How often it is checked that the servers still run.
const LOOK: Duration = Duration::from_secs(1);

/// The parts that we started.
#[derive(Debug)]
pub struct Parts {
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    s3: Option<S3Server>,
}

/// Starts what `settings` does not name, and completes `settings` with it.
pub async fn start(
    data_dir: &DataDir,
    postgres_bin: Option<&PathBuf>,
    settings: &mut Settings,
) -> Result<Parts> {
    let postgres = async {
        match settings.database_url {
            Some(_) => Ok(None),
            None => postgres::start(data_dir, postgres_bin.map(PathBuf::as_path))
                .await
                .map(Some),
        }
    };
    let redis = async {
        match settings.redis_url {
            Some(_) => Ok(None),
            None => redis::start(data_dir).await.map(Some),
        }
    };
    let s3 = async {
        match settings.s3.s3_endpoint {
            Some(_) => Ok(None),
            None => s3::start(data_dir).await.map(Some),
        }
    };
    let (postgres, redis, s3) = tokio::try_join!(Box::pin(postgres), Box::pin(redis), s3)?;
    let parts = Parts {
        postgres,
        redis,
        s3,
    };
    parts.complete(settings);
    Ok(parts)
}

impl Parts {
    fn complete(&self, settings: &mut Settings) {
        if let Some(postgres) = &self.postgres {
            settings.database_url = Some(Secret::new(postgres.url()));
            settings.database_migration_url = Some(Secret::new(postgres.owner_url()));
        }
        if let Some(redis) = &self.redis {
            settings.redis_url = Some(Secret::new(redis.url()));
        }
        if let Some(s3) = &self.s3 {
            settings.s3.s3_endpoint = Some(s3.url());
            settings.s3.s3_bucket = s3::BUCKET.to_owned();
            settings.s3.s3_region = s3::REGION.to_owned();
            settings.s3.s3_access_key = Some(Secret::new(s3.access_key()));
            settings.s3.s3_secret_key = Some(s3.secret_key().clone());
        }
    }

    /// Starts servers that have ended again, for ever. Cancelling it is safe.
    pub async fn tend(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.revive().await {
                tracing::error!("{error:#}");
            }
        }
    }

    async fn revive(&mut self) -> Result<()> {
        if let Some(postgres) = &mut self.postgres
            && postgres.has_ended()
        {
            tracing::error!("PostgreSQL has ended; starting it again");
            Box::pin(postgres.restart()).await?;
        }
        if let Some(redis) = &mut self.redis
            && redis.has_ended()
        {
            tracing::error!("Redis has ended; starting it again");
            redis.restart().await?;
        }
        Ok(())
    }

    /// Stops what was started, the database last.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(s3) = &mut self.s3 {
            s3.stop().await;
        }
        let redis = match &mut self.redis {
            Some(redis) => redis.stop().await,
            None => Ok(()),
        };
        if let Some(postgres) = &mut self.postgres {
            postgres.stop().await?;
        }
        redis.context("stop the parts")
    }
}
