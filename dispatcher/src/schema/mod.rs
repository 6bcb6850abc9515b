//! The database's schema and the two roles that use it.
//!
//! One role owns the tables and migrates; another, restricted one is the application: it reads
//! and writes rows, and of the audit log it may only add to the end. Where one role does both
//! (an external Postgres that gives out no second one) everything works, but nothing keeps that
//! role from the audit log's past. What must never happen: an application role that may change
//! or delete an entry because a later migration granted too much; therefore every migration run
//! ends by granting anew.

mod store;

use anyhow::{Context, bail};
use clawlink_shared::secret::Secret;
use sqlx::{Connection, PgConnection, PgPool};

use crate::MIGRATOR;

/// Applies what is missing of the schema as its owner, then gives `application`, the name of a
/// role, exactly what a dispatcher needs.
pub async fn migrate(owner: &mut PgConnection, application: Option<&str>) -> anyhow::Result<()> {
    MIGRATOR
        .run(&mut *owner)
        .await
        .context("apply migrations")?;
    if let Some(role) = application {
        grant(owner, role).await?;
    }
    Ok(())
}

/// Gives a role what a dispatcher needs, and no more than reading and adding in the audit log.
/// The schema's owner is left as it is. Repeating it changes nothing.
pub async fn grant(owner: &mut PgConnection, role: &str) -> anyhow::Result<()> {
    if store::current_role(owner).await? == role {
        return Ok(());
    }
    store::grant(owner, role)
        .await
        .with_context(|| format!("grant rights to the role {role}"))
}

/// The name of the role that a URL signs in with, as Postgres knows it.
pub async fn role_of(url: &Secret) -> anyhow::Result<String> {
    let mut db = PgConnection::connect(url.expose())
        .await
        .context("connect to Postgres as the application")?;
    let role = store::current_role(&mut db).await?;
    db.close().await.context("close connection")?;
    Ok(role)
}

/// What a starting dispatcher does: migrates with the owner's URL if it has one, else with its
/// own role if that may; one that may not only makes sure that somebody has.
pub async fn prepare(db: &PgPool, owner: Option<&Secret>) -> anyhow::Result<()> {
    let mut own = db.acquire().await.context("connect to Postgres")?;
    if let Some(url) = owner {
        let role = store::current_role(&mut own).await?;
        let mut owner = PgConnection::connect(url.expose())
            .await
            .context("connect to Postgres as the schema's owner")?;
        migrate(&mut owner, Some(&role)).await?;
        return owner.close().await.context("close connection");
    }
    if store::may_create(&mut own).await? {
        return migrate(&mut own, None).await;
    }
    let applied = store::applied(&mut own).await?;
    let missing = MIGRATOR
        .iter()
        .find(|migration| !applied.contains(&migration.version));
    if let Some(migration) = missing {
        bail!(
            "migration {} ({}) is not applied, and this database role may not: run `clawlink migrate --app-role NAME` as the owner, or set DATABASE_MIGRATION_URL",
            migration.version,
            migration.description
        );
    }
    Ok(())
}
