//! A workspace with 100,000 tasks beside others: how long pages, searches and filters take.
//!
//! Measures instead of judging, so it runs only when asked for:
//! `cargo nextest run --release --run-ignored only large_board`.

use std::time::{Duration, Instant};

use clawlink::auth::principal::KeyRole;
use serde_json::json;

use super::app::TestApp;
use super::projects::project;
use super::tasks::task;

/// Tasks of the measured workspace, and as many of another beside it.
const TASKS: i32 = 100_000;
/// Requests per question.
const ROUNDS: usize = 40;
/// Readers at once, and reads, of single tasks.
const READERS: usize = 16;
const READS: usize = 8000;

/// Tasks over ten projects with statuses, labels, agents, dates, parents and words as teams have
/// them: a few words everywhere, many rare ones, two in many tasks but in none of the newest.
const FILL: &str = "
    insert into tasks (workspace_id, project_id, key, title, description, status, priority, labels,
        assigned_agent_type, due_date, parent_id, position, archived, created_by)
    select $1, $2 + n % 10, 'BULK' || (n % 10) || '-' || n,
        'Fix the ' || (array['login','board','stream','queue','archive'])[1 + n % 5] || ' ' || md5(n::text),
        'The word number ' || n || ' of ' || md5((n / 7)::text) || repeat(' and some more text', 10)
            || case when n <= $3 / 2 then ' ancient' else '' end
            || case when n <= $3 * 9 / 10 then ' elder' else '' end,
        (array['todo','in_progress','in_review','done','done','done','blocked'])[1 + n % 7],
        case when n % 100 = 0 then 3 else n % 3 end,
        array['area-' || n % 20, 'rare-' || n % 5000],
        case when n % 3 = 0 then 'claude' end,
        case when n % 4 = 0 then now() + n * interval '1 minute' end,
        null, lpad(n::text, 8, '0') || 'V', n % 11 = 0, 'key:1'
    from generate_series(1, $3) n";

async fn fill(test: &TestApp, workspace: i64, first_project: i64) {
    sqlx::query(FILL)
        .bind(workspace)
        .bind(first_project)
        .bind(TASKS)
        .execute(test.db())
        .await
        .unwrap();
    // One in five stands below another one.
    sqlx::query(
        "update tasks t set parent_id = p.id from tasks p
         where t.workspace_id = $1 and p.workspace_id = $1 and t.project_id = p.project_id
            and t.id % 5 = 0 and p.id = t.id - 10 * (1 + t.id % 7)
            and t.id % 3 <> p.id % 3",
    )
    .bind(workspace)
    .execute(test.db())
    .await
    .unwrap();
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!(
        "p50 {:>9.2?}  p95 {:>9.2?}  max {:>9.2?}",
        at(50),
        at(95),
        at(100)
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of half a minute"]
async fn pages_of_a_hundred_thousand_tasks() {
    let test = TestApp::start_with(|settings| settings.tuning.database_connections = 16).await;
    let made = task(&test, json!({})).await;
    let workspace = made["tenantId"].as_i64().unwrap();
    for n in 0..10 {
        project(&test, json!({"name": "bulk", "key": format!("BULK{n}")})).await;
    }
    let (other, key) = test.key_for("other", KeyRole::Developer).await;
    for n in 0..10 {
        let body = json!({"name": "bulk", "key": format!("BULK{n}")});
        let request = test.http.post(test.url("/api/projects")).json(&body);
        request.bearer_auth(key.expose()).send().await.unwrap();
    }
    fill(&test, workspace, 2).await;
    fill(&test, other.0, 12).await;
    // As autovacuum does in time; the application's role may not.
    let mut owner = test.superuser().await;
    for table in ["tasks", "projects"] {
        let vacuum = sqlx::AssertSqlSafe(format!("vacuum (analyze) {table}"));
        sqlx::raw_sql(vacuum).execute(&mut owner).await.unwrap();
    }
    let md5 = "c4ca4238a0b923820dcc509a6f75849b";
    for query in [
        "projectId=2&limit=50",
        "projectId=2&status=todo&limit=50",
        "projectId=2&status=todo&limit=200",
        "limit=50",
        "status=blocked&limit=50",
        "priority=critical&limit=50",
        "agent=claude&status=todo&limit=50",
        "label=area-7&limit=50",
        "label=rare-77&limit=50",
        "label=nothing&limit=50",
        "dueFrom=2026-11-21&dueTo=2026-12-30&limit=50",
        "archived=any&projectId=3&limit=50",
        &format!("q={md5}&limit=50"),
        "q=login&limit=50",
        "q=the+fix+more&limit=50",
        "q=login+a&limit=50",
        "q=word&projectId=4&limit=50",
        "q=nosuchword&limit=50",
        "q=word+-fix&limit=50",
        "q=ancient&limit=50",
        "q=elder&limit=50",
        "q=ancient&projectId=4&sort=created&limit=50",
    ] {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let answer = test
                .get(&format!("/api/tasks?{query}"))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "{query}");
            let body: serde_json::Value = answer.json().await.unwrap();
            times.push(begun.elapsed());
            found = body["tasks"].as_array().unwrap().len();
        }
        println!("{:<45} {found:>4} found  {}", query, percentiles(times));
    }
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        test.post("/api/tasks/next").send().await.unwrap();
        times.push(begun.elapsed());
    }
    println!("{:<45}             {}", "POST next", percentiles(times));
    for path in ["/health/live", "/api/tasks/1", "/api/tasks/500"] {
        let begun = Instant::now();
        let readers = (0..READERS).map(|_| async {
            let mut times = Vec::new();
            for _ in 0..READS / READERS {
                let begun = Instant::now();
                let answer = test.get(path).send().await.unwrap();
                assert_eq!(answer.status(), 200);
                answer.bytes().await.unwrap();
                times.push(begun.elapsed());
            }
            times
        });
        let times = futures::future::join_all(readers).await.concat();
        let rate = READS as f64 / begun.elapsed().as_secs_f64();
        println!("GET {path:<41} {rate:>6.0}/s     {}", percentiles(times));
    }
}
