//! Boards and lists: order under races, relations, search, pages, events of the workspace.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::refusal;
use super::projects::{get, patch, project};
use super::tasks::{each, task};

async fn board(test: &TestApp) -> Vec<Value> {
    each(test, "/api/tasks?projectId=1", "id").await
}

#[tokio::test]
async fn a_task_goes_where_it_is_put() {
    let test = TestApp::start().await;
    for _ in 0..4 {
        task(&test, json!({})).await;
    }
    assert_eq!(board(&test).await, [1, 2, 3, 4]);
    patch(&test, "/api/tasks/4", json!({"beforeId": 1})).await;
    assert_eq!(board(&test).await, [4, 1, 2, 3]);
    patch(&test, "/api/tasks/4", json!({"afterId": "2"})).await;
    assert_eq!(board(&test).await, [1, 2, 4, 3]);
    patch(
        &test,
        "/api/tasks/1",
        json!({"afterId": 3, "status": "done"}),
    )
    .await;
    assert_eq!(board(&test).await, [2, 4, 3, 1]);
    patch(&test, "/api/tasks/1", json!({"afterId": 1})).await;
    task(&test, json!({"beforeId": 2})).await;
    assert_eq!(board(&test).await, [5, 2, 4, 3, 1]);
    let doing = each(&test, "/api/tasks?projectId=1&status=done,blocked", "id").await;
    assert_eq!(doing, [1]);
    project(&test, json!({"name": "other"})).await;
    let elsewhere = task(&test, json!({"projectId": 2})).await;
    let request = test.http.patch(test.url("/api/tasks/1"));
    let request = request.bearer_auth(test.key.expose());
    let body = json!({"afterId": elsewhere["id"]});
    assert_eq!(refusal(request.json(&body)).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_moves_into_one_gap_give_each_task_a_place() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    for _ in 0..20 {
        task(&test, json!({})).await;
    }
    let body = json!({"afterId": 1});
    for _ in 0..10 {
        let moves = (3..=20).map(|id| {
            let url = [&test.dispatcher.url, &second.url][id % 2];
            let request = test.http.patch(format!("{url}/api/tasks/{id}"));
            request.bearer_auth(test.key.expose()).json(&body).send()
        });
        for answer in futures::future::join_all(moves).await {
            assert_eq!(answer.unwrap().status(), 200);
        }
    }
    let mut ids: Vec<i64> = board(&test)
        .await
        .iter()
        .map(|id| id.as_i64().unwrap())
        .collect();
    assert_eq!((ids[0], ids[19]), (1, 2));
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).collect::<Vec<_>>());
    // 180 moves into one gap would need ranks of over 30 digits: they were spread on the way.
    let positions = each(&test, "/api/tasks?projectId=1", "position").await;
    for pair in positions.windows(2) {
        let pair = [pair[0].as_str().unwrap(), pair[1].as_str().unwrap()];
        assert!(pair[0] < pair[1] && pair[1].len() <= 24, "{pair:?}");
    }
}

#[tokio::test]
async fn random_moves_are_what_a_list_would_do() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let test = TestApp::start().await;
    let mut model: Vec<i64> = (1..=8).collect();
    for _ in &model {
        task(&test, json!({})).await;
    }
    for _ in 0..60 {
        let moved = model.remove(random.random_range(0..model.len()));
        let at = random.random_range(0..model.len());
        let anchor = model[at];
        let (name, place) = [("beforeId", at), ("afterId", at + 1)][random.random_range(0..2)];
        model.insert(place, moved);
        patch(&test, &format!("/api/tasks/{moved}"), json!({name: anchor})).await;
    }
    assert_eq!(board(&test).await, model);
}

async fn relate(test: &TestApp, task: i64, kind: &str, other: i64) -> u16 {
    let body = json!({"kind": kind, "taskId": other});
    let request = test
        .post(&format!("/api/tasks/{task}/relations"))
        .json(&body);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn relations_are_seen_from_both_sides_and_have_no_cycles() {
    let test = TestApp::start().await;
    for _ in 0..4 {
        task(&test, json!({})).await;
    }
    assert_eq!(relate(&test, 1, "child", 2).await, 204);
    assert_eq!(relate(&test, 3, "parent", 2).await, 204);
    for (id, kind, other) in [
        (1, "parent", 3),
        (1, "parent", 2),
        (1, "parent", 1),
        (3, "child", 1),
    ] {
        assert_eq!(
            relate(&test, id, kind, other).await,
            409,
            "{id} {kind} {other}"
        );
    }
    let request = test
        .http
        .patch(test.url("/api/tasks/1"))
        .bearer_auth(test.key.expose());
    let (status, problem) = refusal(request.json(&json!({"parentId": 3}))).await;
    assert_eq!((status, &problem["error"]), (409, &json!("relation_cycle")));
    assert_eq!(relate(&test, 1, "blocks", 2).await, 204);
    assert_eq!(relate(&test, 3, "blocked_by", 2).await, 204);
    for (id, kind, other) in [(3, "blocks", 1), (2, "blocks", 1), (1, "blocked_by", 3)] {
        assert_eq!(
            relate(&test, id, kind, other).await,
            409,
            "{id} {kind} {other}"
        );
    }
    for _ in 0..2 {
        assert_eq!(relate(&test, 4, "relates", 1).await, 204);
    }
    assert_eq!(relate(&test, 4, "relates", 99).await, 404);
    let shown = async |id| {
        let answer = get(&test, &format!("/api/tasks/{id}/relations")).await;
        let relations = answer["relations"].as_array().unwrap().clone();
        let short =
            |one: &Value| format!("{} {}", one["kind"].as_str().unwrap(), one["task"]["id"]);
        relations.iter().map(short).collect::<Vec<_>>()
    };
    assert_eq!(shown(1).await, ["child 2", "blocks 2", "relates 4"]);
    assert_eq!(
        shown(2).await,
        ["parent 1", "child 3", "blocks 3", "blocked_by 1"]
    );
    assert_eq!(shown(4).await, ["relates 1"]);
    for path in [
        "1/relations/relates/4",
        "2/relations/blocked_by/1",
        "1/relations/child/2",
    ] {
        let path = format!("/api/tasks/{path}");
        assert_eq!(
            test.delete(&path).send().await.unwrap().status(),
            204,
            "{path}"
        );
        assert_eq!(refusal(test.delete(&path)).await.0, 404, "{path}");
    }
    assert_eq!(shown(1).await, [] as [&str; 0]);
    assert_eq!(
        refusal(test.delete("/api/tasks/1/relations/odd/2")).await.0,
        400
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_halves_of_a_cycle_made_at_once_are_not_both_taken() {
    let test = TestApp::start().await;
    for _ in 0..2 {
        task(&test, json!({})).await;
    }
    for kind in ["parent", "blocks"] {
        for _ in 0..5 {
            let both = futures::future::join(relate(&test, 1, kind, 2), relate(&test, 2, kind, 1));
            let mut statuses: [u16; 2] = both.await.into();
            statuses.sort_unstable();
            assert_eq!(statuses, [204, 409], "{kind}");
            for (id, other) in [(1, 2), (2, 1)] {
                let path = format!("/api/tasks/{id}/relations/{kind}/{other}");
                test.delete(&path).send().await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_counted_from_below_also_at_once() {
    let test = TestApp::start().await;
    task(&test, json!({})).await;
    task(&test, json!({"parentId": 1})).await;
    for _ in 0..6 {
        task(&test, json!({"parentId": 2})).await;
    }
    let done = (3..=6).map(|id| {
        let request = test.http.patch(test.url(&format!("/api/tasks/{id}")));
        let request = request.bearer_auth(test.key.expose());
        request.json(&json!({"status": "done"})).send()
    });
    for answer in futures::future::join_all(done).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert_eq!(
        get(&test, "/api/tasks/2").await["progress"],
        json!({"done": 4, "total": 6})
    );
    assert_eq!(
        get(&test, "/api/tasks/1").await["progress"],
        json!({"done": 4, "total": 7})
    );
    test.delete("/api/tasks/8").send().await.unwrap();
    patch(&test, "/api/tasks/7", json!({"parentId": null})).await;
    assert_eq!(
        get(&test, "/api/tasks/1").await["progress"],
        json!({"done": 4, "total": 5})
    );
    let listed = each(&test, "/api/tasks?projectId=1&limit=1", "progress").await;
    assert_eq!(listed, [json!({"done": 4, "total": 5})]);
    // The feed told the last word about the task above.
    let (payload,): (Vec<u8>,) = sqlx::query_as(
        "select payload from feed_events where position(convert_to('\"id\":1,', 'utf8') in payload) > 0
         order by seq desc limit 1",
    )
    .fetch_one(test.db())
    .await
    .unwrap();
    let event: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(event["data"]["progress"], json!({"done": 4, "total": 5}));
    test.delete("/api/tasks/2?force=true").send().await.unwrap();
    assert_eq!(get(&test, "/api/tasks/3").await["parentId"], Value::Null);
}

#[tokio::test]
async fn levels_are_bounded() {
    let test = TestApp::start().await;
    task(&test, json!({})).await;
    for id in 2..=8 {
        task(&test, json!({"parentId": id - 1})).await;
    }
    let body = json!({"projectId": 1, "title": "x", "parentId": 8});
    let (status, problem) = refusal(test.post("/api/tasks").json(&body)).await;
    assert_eq!(
        (status, &problem["error"]),
        (409, &json!("too_many_relations"))
    );
    task(&test, json!({})).await;
    task(&test, json!({"parentId": 9})).await;
    assert_eq!(relate(&test, 9, "parent", 6).await, 204);
    assert_eq!(relate(&test, 9, "parent", 7).await, 409);
}

fn asking(test: &TestApp, name: &str, value: &str) -> reqwest::RequestBuilder {
    let url = reqwest::Url::parse_with_params(&test.url("/api/tasks"), [(name, value)]).unwrap();
    test.http.get(url).bearer_auth(test.key.expose())
}

#[tokio::test]
async fn search_finds_words_of_any_script_and_survives_what_people_paste() {
    let test = TestApp::start().await;
    task(
        &test,
        json!({"title": "Äpfel und Birnen", "labels": ["obst"]}),
    )
    .await;
    task(
        &test,
        json!({"title": "Login is broken", "description": "привет мир 日本語"}),
    )
    .await;
    task(
        &test,
        json!({"title": "Rock'n'roll \\ back", "labels": ["it's \\ odd"]}),
    )
    .await;
    let found = async |q: &str| {
        let request = asking(&test, "q", q);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{q}");
        let list: Value = answer.json().await.unwrap();
        let list = list["tasks"].as_array().unwrap().clone();
        list.iter()
            .map(|task| task["id"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    for (q, expected) in [
        ("äpfel", &[1][..]),
        ("ÄPFEL birnen", &[1]),
        ("äpf", &[1]),
        ("obst", &[1]),
        ("log bro", &[]),
        ("login bro", &[2]),
        ("ПРИВЕТ", &[2]),
        ("日本語", &[2]),
        ("\"is broken\"", &[2]),
        ("broken -login", &[]),
        ("birnen or broken", &[2, 1]),
        ("app-002", &[2]),
        ("APP-003", &[3]),
        ("ws:1", &[]),
        ("!!!", &[]),
    ] {
        assert_eq!(found(q).await, expected, "{q}");
    }
    let long = "x".repeat(1000);
    for hostile in [
        "'",
        "\\",
        "' | 'ws:1",
        "a & | !",
        "((((",
        "-\"a b\"",
        "\"",
        ":*",
        "<->",
        "a:*b",
        "'; drop table tasks; --",
        "\u{202e}\u{feff}",
        "😀",
        "a\tb\nc",
        "%",
        "_",
        &long,
    ] {
        found(hostile).await;
    }
    let labelled = asking(&test, "label", "it's \\ odd");
    let list: Value = labelled.send().await.unwrap().json().await.unwrap();
    assert_eq!(list["tasks"][0]["id"], 3);
    for label in ["ob", "OBST", "'", "x' | 'ws:1"] {
        let request = asking(&test, "label", label);
        let list: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(list, json!({"tasks": []}), "{label}");
    }
}

#[tokio::test]
async fn filters_narrow_together() {
    let test = TestApp::start().await;
    let body = json!({"priority": "high", "labels": ["a", "b"], "assignedAgentType": "claude",
        "dueDate": "2026-12-01", "status": "blocked", "description": "word"});
    task(&test, body).await;
    task(&test, json!({"dueDate": "2026-12-02", "parentId": 1})).await;
    for (query, expected) in [
        ("priority=high,critical", &[1][..]),
        ("label=b", &[1]),
        ("agent=claude", &[1]),
        ("assignedAgentType=openai", &[]),
        ("dueFrom=2026-12-01&dueTo=2026-12-02", &[1]),
        ("due_from=2026-12-02", &[2]),
        ("parentId=1", &[2]),
        ("key=APP-002", &[2]),
        ("status=todo", &[2]),
        ("project_id=1&sort=created", &[2, 1]),
        (
            "q=word&label=a&status=blocked&priority=high&agent=claude&projectId=1",
            &[1],
        ),
        ("assignee=00000000-0000-0000-0000-000000000000", &[]),
    ] {
        let ids = each(&test, &format!("/api/tasks?{query}"), "id").await;
        assert_eq!(ids, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_neither_repeat_nor_skip_while_tasks_come_and_go() {
    let test = TestApp::start().await;
    for _ in 0..9 {
        task(&test, json!({})).await;
    }
    for query in [
        "projectId=1",
        "sort=created",
        "projectId=1&sort=created",
        "q=do",
    ] {
        let standing: Vec<i64> = each(&test, &format!("/api/tasks?{query}"), "id")
            .await
            .iter()
            .map(|id| id.as_i64().unwrap())
            .collect();
        let mut seen = Vec::new();
        let mut path = format!("/api/tasks?{query}&limit=2");
        loop {
            let page = get(&test, &path).await;
            let ids = page["tasks"].as_array().unwrap().iter();
            seen.extend(ids.map(|task| task["id"].as_i64().unwrap()));
            let first = seen[0];
            task(&test, json!({"beforeId": first})).await;
            task(&test, json!({"afterId": first})).await;
            patch(
                &test,
                &format!("/api/tasks/{first}"),
                json!({"title": "do it now"}),
            )
            .await;
            let Some(cursor) = page["nextCursor"].as_str() else {
                break;
            };
            path = format!("/api/tasks?{query}&limit=2&cursor={cursor}");
        }
        let mut once = seen.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "{query}: {seen:?}");
        let kept: Vec<i64> = seen
            .into_iter()
            .filter(|id| standing.contains(id))
            .collect();
        assert_eq!(kept, standing, "{query}");
        for id in each(&test, "/api/tasks", "id").await {
            if !standing.contains(&id.as_i64().unwrap()) {
                let request = test.http.request(
                    Method::DELETE,
                    test.url(&format!("/api/tasks/{id}?force=true")),
                );
                request.bearer_auth(test.key.expose()).send().await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_blocks_keeps_the_blocked_from_being_taken() {
    let test = TestApp::start().await;
    task(&test, json!({"status": "in_progress"})).await;
    task(&test, json!({})).await;
    relate(&test, 1, "blocks", 2).await;
    let next = async || {
        let answer = test.post("/api/tasks/next").send().await.unwrap();
        answer.json::<Value>().await.unwrap()["task"]["id"].clone()
    };
    assert_eq!(next().await, Value::Null);
    patch(&test, "/api/tasks/1", json!({"status": "done"})).await;
    assert_eq!(next().await, "2");
}

/// Tasks without the word, newer than all that have it: more than are looked through in order.
const NEWER: i32 = 5500;

#[tokio::test]
async fn words_of_old_tasks_alone_are_found_page_by_page() {
    let test = TestApp::start().await;
    let made = task(&test, json!({})).await;
    let workspace = made["tenantId"].as_i64().unwrap();
    sqlx::query(
        "insert into tasks (workspace_id, project_id, key, title, position, created_by)
         select $1, $2, 'OLD-' || n, case when n <= $3 then 'ancient ' else 'young ' end || n,
            lpad(n::text, 8, '0') || 'V', 'key:1'
         from generate_series(1, 2 * $3) n",
    )
    .bind(workspace)
    .bind(made["projectId"].as_i64().unwrap())
    .bind(NEWER)
    .execute(test.db())
    .await
    .unwrap();
    let mut expected = (1..=NEWER).rev().map(|n| format!("ancient {n}"));
    let mut cursor = String::new();
    for _ in 0..3 {
        let path = format!("/api/tasks?q=ancient&limit=50{cursor}");
        let page: Value = test.get(&path).send().await.unwrap().json().await.unwrap();
        let titles = page["tasks"].as_array().unwrap().iter();
        let titles: Vec<&str> = titles.map(|task| task["title"].as_str().unwrap()).collect();
        let wanted: Vec<String> = expected.by_ref().take(50).collect();
        assert_eq!(titles, wanted);
        cursor = format!("&cursor={}", page["nextCursor"].as_str().unwrap());
    }
}
