//! Pull requests of executions.

use clawlink_shared::control::PullRequest;
use clawlink_shared::id::ExecutionId;
use sqlx::PgConnection;

/// The pull request that was recorded for an execution.
pub(crate) async fn recorded(
    db: &mut PgConnection,
    execution: ExecutionId,
) -> anyhow::Result<Option<PullRequest>> {
    let row = sqlx::query!(
        "select pr_url as \"url!\", pr_number as \"number!\" from executions
         where id = $1 and pr_url is not null and pr_number is not null",
        execution.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| PullRequest {
        url: row.url,
        number: row.number.unsigned_abs(),
    }))
}

/// Records it for a locked execution and answers who submitted that; `None` if it has one.
pub(crate) async fn record(
    db: &mut PgConnection,
    execution: ExecutionId,
    pull: &PullRequest,
) -> anyhow::Result<Option<String>> {
    let submitted_by = sqlx::query_scalar!(
        "update executions set pr_url = $2, pr_number = $3 where id = $1 and pr_url is null
         returning submitted_by",
        execution.0,
        pull.url,
        i64::try_from(pull.number)?,
    )
    .fetch_optional(db)
    .await?;
    Ok(submitted_by)
}
