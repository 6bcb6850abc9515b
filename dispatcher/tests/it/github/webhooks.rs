//! What GitHub says by itself.

use clawlink::github;
use clawlink::github::webhook::Pull;
use clawlink_fixtures::github::{Github, Webhook, signature};
use clawlink_shared::secret::Secret;
use serde_json::{Value, json};

use super::{Hub, REPO};
use crate::client::script;

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
async fn a_merge_names_the_executions_of_its_pull_request() {
    let hub = hub().await;
    let (first, held) = hub.running(&json!({})).await;
    let answer = held.must("pull-request", &json!({})).await;
    held.complete(0).await;
    let (second, held) = hub.running(&json!({})).await;
    held.must("pull-request", &json!({})).await;
    hub.test.accepted(&script("true")).await;
    let mut db = hub.test.db().acquire().await.unwrap();
    let mut pull = Pull {
        repository: REPO.to_owned(),
        number: 1,
        url: answer["pullRequest"]["url"].as_str().unwrap().to_owned(),
    };
    let found = github::merged(&mut db, &pull).await.unwrap();
    let ids: Vec<_> = found.iter().map(|pulled| pulled.execution).collect();
    assert_eq!(ids, [first.execution_id, second.execution_id]);
    pull.url.push('0');
    assert!(github::merged(&mut db, &pull).await.unwrap().is_empty());
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
