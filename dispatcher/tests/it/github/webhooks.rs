//! What GitHub says by itself.

use clawlink::github;
use clawlink_fixtures::github::{Github, Webhook, signature};
use clawlink_shared::secret::Secret;
use serde_json::{Value, json};

use super::{Hub, REPO};
use crate::wait::{eventually, is_lock_awaited};

const SECRET: &str = "secret-of-the-webhook";

async fn hub() -> Hub {
    Hub::start_with(|settings, _| {
        settings.github.github_webhook_secret = Some(Secret::new(SECRET));
    })
    .await
}

impl Hub {
    async fn deliver(&self, webhook: &Webhook) -> (u16, Value) {
        let url = self.test.url("/api/webhooks/github");
        webhook.send(&url).await.unwrap()
    }

    async fn deliveries(&self) -> i64 {
        let count = sqlx::query_scalar("select count(*) from github_deliveries");
        count.fetch_one(self.test.db()).await.unwrap()
    }
}

#[tokio::test]
async fn a_merge_is_heard_once() {
    let hub = hub().await;
    hub.asked(&json!({})).await;
    hub.github.close(REPO, 1, true);
    let merged = hub.github.webhook(REPO, 1, "closed", SECRET);
    assert_eq!(
        hub.deliver(&merged).await,
        (200, json!({"result": "merged"}))
    );
    // GitHub's "Redeliver", and somebody who has seen a delivery and gives it another id.
    let renamed = Webhook {
        delivery: "another-id".to_owned(),
        ..merged.clone()
    };
    for again in [&merged, &renamed] {
        assert_eq!(
            hub.deliver(again).await,
            (200, json!({"result": "repeated"}))
        );
    }
    assert_eq!(hub.deliveries().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_same_delivery_at_one_moment_one_counts() {
    let hub = hub().await;
    hub.asked(&json!({})).await;
    hub.github.close(REPO, 1, true);
    let merged = hub.github.webhook(REPO, 1, "closed", SECRET);
    let all = futures::future::join_all((0..8).map(|_| hub.deliver(&merged))).await;
    let first = all.iter().filter(|(_, said)| said["result"] == "merged");
    assert_eq!(first.count(), 1, "{all:?}");
    assert!(all.iter().all(|(status, _)| *status == 200));
}

#[tokio::test]
async fn events_are_told_apart() {
    let hub = hub().await;
    hub.asked(&json!({})).await;
    hub.github.close(REPO, 1, false);
    let closed = hub.github.webhook(REPO, 1, "closed", SECRET);
    hub.github.reopen(REPO, 1);
    let reopened = hub.github.webhook(REPO, 1, "reopened", SECRET);
    let labeled = hub.github.webhook(REPO, 1, "labeled", SECRET);
    let ping = Webhook::new(
        "ping",
        &json!({"zen": "Keep it logically awesome."}),
        SECRET,
    );
    for (webhook, result) in [
        (closed, "closed"),
        (reopened, "reopened"),
        (labeled, "ignored"),
        (ping, "ignored"),
    ] {
        assert_eq!(
            hub.deliver(&webhook).await,
            (200, json!({"result": result}))
        );
    }
}

#[tokio::test]
async fn what_is_not_signed_is_refused_and_leaves_nothing() {
    let hub = hub().await;
    hub.asked(&json!({})).await;
    let good = hub.github.webhook(REPO, 1, "closed", SECRET);
    let forged = |signature: Option<String>| Webhook {
        signature,
        ..good.clone()
    };
    for webhook in [
        forged(None),
        forged(Some(String::new())),
        forged(Some(signature("another secret", &good.body))),
        forged(Some(signature(SECRET, b"another body"))),
    ] {
        let (status, said) = hub.deliver(&webhook).await;
        assert_eq!((status, &said["error"]), (401, &json!("unauthorized")));
    }
    for delivery in ["", "an id", &"x".repeat(65)] {
        let webhook = Webhook {
            delivery: delivery.to_owned(),
            ..good.clone()
        };
        assert_eq!(hub.deliver(&webhook).await.0, 400);
    }
    let shapeless = Webhook::new("pull_request", &json!({}), SECRET);
    assert_eq!(hub.deliver(&shapeless).await.0, 400);
    let large = Webhook::new("ping", &json!("x".repeat(3 * 1024 * 1024)), SECRET);
    assert_eq!(hub.deliver(&large).await.0, 413);
    assert_eq!(hub.deliveries().await, 0);
}

#[tokio::test]
async fn without_a_secret_there_is_no_such_path() {
    let hub = Hub::start().await;
    let github = Github::start().await.unwrap();
    github.create_repo(REPO, "main");
    let webhook = Webhook::new("ping", &json!({}), "");
    let (status, said) = hub.deliver(&webhook).await;
    let nowhere = hub.test.get("/api/webhooks/gitlab").send().await.unwrap();
    assert_eq!(
        (status, said),
        (404, nowhere.json::<Value>().await.unwrap())
    );
}

#[tokio::test]
async fn old_deliveries_are_forgotten() {
    let hub = hub().await;
    hub.asked(&json!({})).await;
    for action in ["closed", "reopened"] {
        hub.deliver(&hub.github.webhook(REPO, 1, action, SECRET))
            .await;
    }
    let age = "update github_deliveries set received_at = now() - interval '31 days'
        where id = (select min(id) from github_deliveries)";
    sqlx::query(age).execute(hub.test.db()).await.unwrap();
    github::clean(hub.test.app()).await.unwrap();
    assert_eq!(hub.deliveries().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_and_a_change_of_one_of_its_tasks_do_not_wait_for_each_other() {
    let hub = hub().await;
    let test = &hub.test;
    let post = async |path: &str, body: Value| -> Value {
        let answer = test.post(path).json(&body).send().await.unwrap();
        answer.json().await.unwrap()
    };
    let project = post("/api/projects", json!({"name": "App"})).await;
    let url = "https://github.com/acme/app/pull/7";
    let task = json!({"projectId": project["id"], "title": "Mend it", "githubPrUrl": url});
    let (_, last) = (
        post("/api/tasks", task.clone()).await,
        post("/api/tasks", task).await,
    );
    // Somebody has begun to change the second task, and tells the feed when that is done.
    let mut change = test.db().begin().await.unwrap();
    sqlx::query("select id from tasks where id = $1 for no key update")
        .bind(last["id"].as_i64())
        .execute(&mut *change)
        .await
        .unwrap();
    let merged = Webhook::new(
        "pull_request",
        &json!({
            "action": "closed",
            "pull_request": {"number": 7, "merged": true, "html_url": url},
            "repository": {"full_name": REPO},
        }),
        SECRET,
    );
    let merge = async {
        let answer = hub.deliver(&merged).await;
        assert_eq!(answer, (200, json!({"result": "merged"})));
    };
    let change = async {
        eventually("the merge waits for that task", async || {
            is_lock_awaited(test.db()).await.then_some(())
        })
        .await;
        sqlx::query("update feeds set last_seq = last_seq")
            .execute(&mut *change)
            .await
            .unwrap();
        change.commit().await.unwrap();
    };
    tokio::join!(merge, change);
    let open: i64 = sqlx::query_scalar("select count(*) from tasks where status <> 'done'")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(open, 0);
}
