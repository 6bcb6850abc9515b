//! Roles and migrations in Postgres. Statements are checked when they run: some name what no
//! migration makes, others cannot take parameters.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Serializes grants of replicas that start together; any number that nothing else uses.
const GRANT_LOCK: i64 = 0x636c_6177_6772_616e;

/// Who we are.
pub(super) async fn current_role(db: &mut PgConnection) -> anyhow::Result<String> {
    Ok(sqlx::query_scalar("select current_user::text")
        .fetch_one(db)
        .await?)
}

/// Whether this role may make tables.
pub(super) async fn may_create(db: &mut PgConnection) -> anyhow::Result<bool> {
    Ok(
        sqlx::query_scalar("select has_schema_privilege(current_schema(), 'create')")
            .fetch_one(db)
            .await?,
    )
}

/// Versions of the migrations that were applied.
pub(super) async fn applied(db: &mut PgConnection) -> anyhow::Result<Vec<i64>> {
    let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *db)
        .await?;
    if !exists {
        return Ok(Vec::new());
    }
    Ok(
        sqlx::query_scalar("select version from _sqlx_migrations where success")
            .fetch_all(db)
            .await?,
    )
}

/// Rows may be read and written everywhere but in the audit log, which may be read and added
/// to: not even an entry's number, time or transaction can be chosen.
pub(super) async fn grant(db: &mut PgConnection, role: &str) -> anyhow::Result<()> {
    let mut tx = db.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(GRANT_LOCK)
        .execute(&mut *tx)
        .await?;
    let schema: String = sqlx::query_scalar("select current_schema()::text")
        .fetch_one(&mut *tx)
        .await?;
    let (role, schema) = (quoted(role), quoted(&schema));
    let migrations: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *tx)
        .await?;
    let read_only = if migrations { ", _sqlx_migrations" } else { "" };
    let statements = format!(
        "grant usage on schema {schema} to {role};
         grant select, insert, update, delete on all tables in schema {schema} to {role};
         grant usage, select on all sequences in schema {schema} to {role};
         revoke all on audit_entries, audit_chain{read_only} from {role};
         grant select on audit_entries, audit_chain{read_only} to {role};
         grant insert (workspace_id, actor, address, action, resource_type, resource_id, outcome, details)
            on audit_entries to {role};
         grant insert on audit_chain to {role}"
    );
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// A name as SQL takes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
