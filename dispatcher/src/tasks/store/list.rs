//! Lists of tasks: filters, full-text search, pages by the last one's place.
//!
//! The statement holds only the filters that were asked for and is planned with their values, so
//! that each finds its index: a board's page, a rare label, a common word. The full-text index
//! holds each task's workspace as a word, so a search never visits the rows of others.

use clawlink_shared::id::{ProjectId, TaskId, UserId, WorkspaceId};
use sqlx::{Connection, PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;

use super::Task;
use crate::tasks::kinds::Status;

/// The columns of a [`Task`] but for its progress.
const COLUMNS: &str = "id, workspace_id, project_id, key, title, description, status, \
    blocked_reason, priority, labels, assigned_agent_type, assignee_id, persona, start_date, \
    due_date, github_pr_url, github_pr_number, parent_id, position, archived, created_by, \
    created_at, updated_at";

/// Rows in order through which common words are looked for.
const NEAR: i64 = 5000;
/// Tasks of a workspace that are looked at to learn how common a word is.
const SAMPLES: i64 = 200;
/// Samples beyond the first match, up to which a page of matches is looked for.
const BEYOND: i64 = 5;

/// Counts what is below each task of a page.
const PROGRESS: &str = "lateral (
    with recursive under as (
        select c.id, c.status from tasks c
        where c.workspace_id = page.workspace_id and c.parent_id = page.id and not c.archived
        union
        select c.id, c.status from tasks c join under on c.parent_id = under.id
        where c.workspace_id = page.workspace_id and not c.archived
    )
    select count(*) as below, count(*) filter (where under.status = 'done') as below_done
    from under) progress";

/// Which tasks a list shows.
#[derive(Debug, Default)]
pub(in crate::tasks) struct Filter {
    pub(in crate::tasks) project: Option<ProjectId>,
    /// Any of these; empty means all.
    pub(in crate::tasks) statuses: Vec<Status>,
    /// Any of these; empty means all.
    pub(in crate::tasks) priorities: Vec<i16>,
    pub(in crate::tasks) agent: Option<String>,
    pub(in crate::tasks) label: Option<String>,
    pub(in crate::tasks) assignee: Option<UserId>,
    pub(in crate::tasks) parent: Option<TaskId>,
    pub(in crate::tasks) key: Option<String>,
    /// From this moment on.
    pub(in crate::tasks) due_from: Option<OffsetDateTime>,
    /// Before this moment.
    pub(in crate::tasks) due_to: Option<OffsetDateTime>,
    /// `None` shows archived ones too.
    pub(in crate::tasks) archived: Option<bool>,
    /// Words, as people type them.
    pub(in crate::tasks) text: Option<String>,
}

/// The order of a list, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tasks) enum Order {
    /// As on the board of one project, after this place.
    Board(Option<String>),
    /// The newest first, before this id.
    Newest(Option<i64>),
}

impl Order {
    /// What Postgres sorts by. Not by the id itself: its index spans all workspaces.
    fn by(&self) -> &'static str {
        match self {
            Self::Board(_) => "position",
            Self::Newest(_) => "-id",
        }
    }
}

/// How a statement comes by its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Along an index that the planner chooses.
    Planned,
    /// Through the nearest rows in order: common words fill a page at once.
    Near,
    /// Through the index of words, but only to rows whose `-id` is at most this: where the first
    /// matches are, of words that many tasks have, but none of the nearest.
    Until(i64),
    /// Through all rows in order, for the same words where that found too few.
    Walk,
    /// Through the index of words, for those that are too rare for that.
    Words,
}

/// A page of tasks.
pub(in crate::tasks) async fn page(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    filter: &Filter,
    order: &Order,
    limit: i64,
) -> anyhow::Result<Vec<Task>> {
    let Some(text) = &filter.text else {
        let sql = statement(workspace, filter, order, limit, None, Way::Planned);
        return fetch(db, sql).await;
    };
    let Some(words) = words(db, text).await? else {
        return Ok(Vec::new());
    };
    // How common a beginning of a word is, the planner cannot know.
    let sql = statement(workspace, filter, order, limit, Some(&words), Way::Near);
    let tasks = fetch(db, sql).await?;
    if tasks.len() as i64 == limit {
        return Ok(tasks);
    }
    let way = way(db, workspace, order, &words).await?;
    if let Way::Until(_) = way {
        let sql = statement(workspace, filter, order, limit, Some(&words), way);
        let tasks = fetch_by_bitmaps(db, sql).await?;
        if tasks.len() as i64 == limit {
            return Ok(tasks);
        }
    }
    let way = match way {
        Way::Until(_) => Way::Walk,
        way => way,
    };
    let sql = statement(workspace, filter, order, limit, Some(&words), way);
    fetch(db, sql).await
}

/// How words are found that the nearest rows do not have. A row costs twice as much by the index
/// of words as on a walk, so a walk is shorter to a first match that is not as deep as twice the
/// share of tasks that match.
async fn way(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    order: &Order,
    words: &str,
) -> anyhow::Result<Way> {
    let after = match order {
        Order::Newest(Some(before)) => Some(-before),
        Order::Newest(None) | Order::Board(_) => None,
    };
    let found = sqlx::query!(
        "select count(*) filter (where is_match) as \"matches!\",
            min(n) filter (where is_match) as first,
            min(newest + (oldest - newest) * (n + $5) / $3) filter (where is_match) as until
         from (select min(-id) as newest, max(-id) as oldest from tasks
                where workspace_id = $1 and ($4::bigint is null or -id > $4)) ends,
            generate_series(0, $3::bigint - 1) n,
            lateral (select search @@ $2::text::tsquery as is_match from tasks
                where workspace_id = $1 and -id >= newest + (oldest - newest) * n / $3
                order by -id limit 1) sample",
        workspace.0,
        words,
        SAMPLES,
        after,
        BEYOND,
    )
    .fetch_one(db)
    .await?;
    Ok(match (found.first, found.until, order) {
        (Some(first), _, _) if first > 2 * found.matches => Way::Words,
        (Some(_), Some(until), Order::Newest(_)) => Way::Until(until),
        (Some(_), _, _) => Way::Walk,
        (None, _, _) => Way::Words,
    })
}

/// The same with no plan but bitmaps: of two indexes' rows only those in both are visited.
async fn fetch_by_bitmaps(
    db: &mut PgConnection,
    sql: QueryBuilder<Postgres>,
) -> anyhow::Result<Vec<Task>> {
    let mut tx = db.begin().await?;
    sqlx::query!("set local enable_indexscan = off")
        .execute(&mut *tx)
        .await?;
    let tasks = fetch(&mut tx, sql).await?;
    tx.rollback().await?;
    Ok(tasks)
}

/// Not kept as a prepared statement: it is to be planned with its values.
async fn fetch(
    db: &mut PgConnection,
    mut sql: QueryBuilder<Postgres>,
) -> anyhow::Result<Vec<Task>> {
    let tasks = sql.build_query_as().persistent(false).fetch_all(db).await?;
    Ok(tasks)
}

fn statement(
    workspace: WorkspaceId,
    filter: &Filter,
    order: &Order,
    limit: i64,
    words: Option<&str>,
    way: Way,
) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("with found as ");
    // In the index of words the workspace is one of them; its own index would only be in the way.
    // Half of all tasks may hold a word: of these no more is kept than what the order needs.
    match way {
        Way::Planned | Way::Near | Way::Until(_) | Way::Walk => sql
            .push("not materialized (select ")
            .push(COLUMNS)
            .push(", search from tasks where workspace_id = "),
        Way::Words => {
            sql.push("materialized (select id, position from tasks where workspace_id + 0 = ")
        }
    };
    sql.push_bind(workspace.0);
    narrow(&mut sql, workspace, filter);
    match order {
        Order::Board(Some(after)) => {
            sql.push(" and position > ").push_bind(after.clone());
        }
        Order::Newest(Some(before)) => {
            sql.push(" and -id > ").push_bind(-before);
        }
        Order::Board(None) | Order::Newest(None) => {}
    }
    let by = order.by();
    if way == Way::Near {
        sql.push(format!(" order by {by} limit {NEAR}"));
    }
    let matches = |sql: &mut QueryBuilder<Postgres>, words: &str| {
        let both = format!("{} & ( {words} )", here_lexeme(workspace));
        sql.push("search @@ ").push_bind(both).push("::tsquery");
    };
    match (way, words) {
        (Way::Words, Some(words)) => {
            sql.push(" and ");
            matches(&mut sql, words);
        }
        (Way::Until(last), Some(words)) => {
            sql.push(" and -id <= ").push_bind(last).push(" and ");
            matches(&mut sql, words);
        }
        (Way::Walk, Some(words)) => {
            // In a form that the index of words does not know.
            sql.push(" and (");
            matches(&mut sql, words);
            sql.push(") is true");
        }
        _ => {}
    }
    sql.push(") select page.*, below, below_done from (select ");
    sql.push(COLUMNS);
    if way == Way::Words {
        let first = " from (select id as first_id from found";
        sql.push(format!("{first} order by {by} limit "));
        sql.push_bind(limit);
        sql.push(") first join tasks on id = first_id");
    } else {
        sql.push(" from found");
        if let (Way::Near, Some(words)) = (way, words) {
            sql.push(" where ");
            matches(&mut sql, words);
        }
        sql.push(format!(" order by {by} limit ")).push_bind(limit);
    }
    sql.push(") page, ").push(PROGRESS);
    sql.push(format!(" order by {by}"));
    sql
}

/// The workspace as a word of the index.
fn here_lexeme(workspace: WorkspaceId) -> String {
    lexeme(&format!("ws:{workspace}"))
}

fn narrow(sql: &mut QueryBuilder<Postgres>, workspace: WorkspaceId, filter: &Filter) {
    if let Some(project) = filter.project {
        sql.push(" and project_id = ").push_bind(project.0);
    }
    if let [status] = filter.statuses[..] {
        sql.push(" and status = ").push_bind(status.as_str());
    } else if !filter.statuses.is_empty() {
        let names: Vec<&str> = filter
            .statuses
            .iter()
            .map(|status| status.as_str())
            .collect();
        sql.push(" and status = any(").push_bind(names).push(")");
    }
    if let [priority] = filter.priorities[..] {
        sql.push(" and priority = ").push_bind(priority);
    } else if !filter.priorities.is_empty() {
        sql.push(" and priority = any(")
            .push_bind(filter.priorities.clone())
            .push(")");
    }
    if let Some(agent) = &filter.agent {
        sql.push(" and assigned_agent_type = ")
            .push_bind(agent.clone());
    }
    if let Some(assignee) = filter.assignee {
        sql.push(" and assignee_id = ").push_bind(assignee.0);
    }
    if let Some(parent) = filter.parent {
        sql.push(" and parent_id = ").push_bind(parent.0);
    }
    if let Some(key) = &filter.key {
        sql.push(" and key = ").push_bind(key.clone());
    }
    if let Some(from) = filter.due_from {
        sql.push(" and due_date >= ").push_bind(from);
    }
    if let Some(to) = filter.due_to {
        sql.push(" and due_date < ").push_bind(to);
    }
    match filter.archived {
        Some(true) => sql.push(" and archived"),
        Some(false) => sql.push(" and not archived"),
        None => sql,
    };
    if let Some(label) = &filter.label {
        let both = format!("{} & {}", here_lexeme(workspace), lexeme(label));
        sql.push(" and labels @> array[").push_bind(label.clone());
        sql.push("] and search @@ ")
            .push_bind(both)
            .push("::tsquery");
    }
}

/// What people typed as a query in which all words must occur and the last one may be the
/// beginning of one; `None` if it holds no word.
async fn words(db: &mut PgConnection, text: &str) -> anyhow::Result<Option<String>> {
    let query = sqlx::query_scalar!(
        "select case when numnode(query) > 0 then query::text end
         from websearch_to_tsquery('simple', lower($1::text collate \"und-x-icu\")) query",
        text,
    )
    .fetch_one(db)
    .await?;
    // After a negated phrase there is no last word to extend.
    Ok(query.map(|query| match query.ends_with(')') {
        true => query,
        false => format!("{query}:*"),
    }))
}

/// One word of a text search query, whatever it holds.
fn lexeme(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
