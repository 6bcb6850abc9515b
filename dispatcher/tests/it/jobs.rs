//! Executions as a client makes and sees them.

use serde_json::{Value, json};

use crate::app::TestApp;
use crate::wait::eventually;

/// A submitted execution.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Its number.
    pub(crate) id: i64,
    /// Its session.
    pub(crate) session: String,
}

impl TestApp {
    /// Submits a shell execution.
    pub(crate) async fn submit(&self) -> Job {
        self.submit_with(json!({})).await
    }

    /// Submits a shell execution with more fields.
    pub(crate) async fn submit_with(&self, more: Value) -> Job {
        let key = self.key.expose().to_owned();
        self.submit_as(&key, more).await
    }

    /// Submits with another key.
    pub(crate) async fn submit_as(&self, key: &str, more: Value) -> Job {
        let mut body = json!({"userRequest": "true", "codingAssistantProvider": "shell"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let call = self.http.post(self.url("/execute")).bearer_auth(key);
        let call = call.header("accept", "application/json").json(&body);
        let answer = call.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, 202, "{body}");
        Job {
            id: body["executionId"].as_i64().unwrap(),
            session: body["sessionId"].as_str().unwrap().to_owned(),
        }
    }

    /// Waits until all that was submitted is in the ready queue: looking once finds it then.
    pub(crate) async fn queued(&self) {
        eventually("the quick effects are performed", || async {
            let left =
                sqlx::query_scalar::<_, i64>("select count(*) from outbox where not is_slow")
                    .fetch_one(self.db())
                    .await;
            (left.unwrap() == 0).then_some(())
        })
        .await;
    }

    /// A later turn of a session.
    pub(crate) async fn resume(&self, job: &Job) -> Job {
        self.submit_with(json!({"resumeSessionId": job.session}))
            .await
    }

    /// What `GET /executions/{id}` says.
    pub(crate) async fn show(&self, job: &Job) -> Value {
        let answer = self.get(&format!("/executions/{}", job.id)).send().await;
        answer.unwrap().json().await.unwrap()
    }

    /// Its state's name.
    pub(crate) async fn state_of(&self, job: &Job) -> String {
        self.show(job).await["status"].as_str().unwrap().to_owned()
    }

    /// Waits until it has this state.
    pub(crate) async fn becomes(&self, job: &Job, state: &str) {
        eventually(&format!("execution {} is {state}", job.id), || async {
            (self.state_of(job).await == state).then_some(())
        })
        .await;
    }

    /// Its whole log; checks that it has no gap and at most one end.
    pub(crate) async fn log(&self, job: &Job) -> Vec<Value> {
        let path = format!("/executions/{}/events?limit=1000", job.id);
        let call = self.get(&path).header("accept", "application/json");
        let body: Value = call.send().await.unwrap().json().await.unwrap();
        let events = body["events"].as_array().expect("events").clone();
        for (event, seq) in events.iter().zip(1..) {
            assert_eq!(event["seq"], seq, "{event}");
        }
        let is_end = |event: &&Value| {
            ["completed", "error", "cancelled"].contains(&event["type"].as_str().unwrap())
        };
        let ends = events.iter().filter(is_end).count();
        assert!(ends <= 1, "{events:#?}");
        if ends == 1 {
            assert!(is_end(&events.last().unwrap()), "{events:#?}");
        }
        events
    }

    /// The types of its log.
    pub(crate) async fn types(&self, job: &Job) -> Vec<String> {
        let log = self.log(job).await;
        log.iter()
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Its last event.
    pub(crate) async fn last_event(&self, job: &Job) -> Value {
        self.log(job).await.pop().unwrap()
    }

    /// Asks to cancel it; answers the status.
    pub(crate) async fn cancel(&self, job: &Job) -> u16 {
        let call = self.post(&format!("/executions/{}/cancel", job.id));
        call.send().await.unwrap().status().as_u16()
    }
}
