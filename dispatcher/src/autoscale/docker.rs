//! The one service of the Docker Engine, over its local socket.
//!
//! The service's specification is changed as the JSON that it came as. A client with types of its
//! own would leave out what it does not know (a disabled health check, for one), and Swarm
//! replaces every task of a service whose specification differs.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Response;
use serde_json::{Value, json};

/// How long the engine may take.
const WITHIN: Duration = Duration::from_secs(20);
/// What Swarm gives a task to stop where the service says nothing.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// The version of the API that Docker 20.10 and everything newer speaks, as part of each address;
/// the host's name is not looked at.
const API: &str = "http://docker/v1.41";

/// The engine of a manager.
pub(super) struct Swarm(reqwest::Client);

/// The workers' service as it was read.
#[derive(Debug)]
pub(super) struct Pool {
    /// How many tasks it should have.
    pub(super) replicas: u64,
    /// How long a task that is stopped may go on.
    pub(super) stop_grace: Duration,
    id: String,
    version: u64,
    spec: Value,
}

impl Swarm {
    /// Prepares a client; connects to nothing.
    pub(super) fn new(socket: &str) -> Result<Self> {
        let client = reqwest::Client::builder()
            .unix_socket(socket)
            .timeout(WITHIN)
            .build();
        client.map(Self).context("make a client of Docker")
    }

    /// Reads the service.
    pub(super) async fn pool(&self, name: &str) -> Result<Pool> {
        let asked = self.0.get(format!("{API}/services/{name}")).send().await;
        let answer = accepted(asked.context("ask Docker")?, "read the service").await?;
        Pool::read(answer.json().await.context("read the service")?)
    }

    /// Changes the number of tasks and nothing else; refused if anybody changed the service since
    /// it was read.
    pub(super) async fn resize(&self, pool: &Pool, to: u64) -> Result<()> {
        let (id, version) = (&pool.id, pool.version);
        let url = format!("{API}/services/{id}/update?version={version}");
        let asked = self.0.post(url).json(&pool.resized(to)).send().await;
        accepted(asked.context("ask Docker")?, "change the service").await?;
        Ok(())
    }
}

impl Pool {
    fn read(service: Value) -> Result<Self> {
        let spec = service["Spec"].clone();
        let replicas = spec["Mode"]["Replicated"]["Replicas"].as_u64();
        let grace = spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"].as_u64();
        Ok(Self {
            replicas: replicas.context("the service is not a replicated one")?,
            stop_grace: grace.map_or(DEFAULT_GRACE, Duration::from_nanos),
            id: service["ID"]
                .as_str()
                .context("the service has no id")?
                .to_owned(),
            version: service["Version"]["Index"]
                .as_u64()
                .context("the service has no version")?,
            spec,
        })
    }

    fn resized(&self, to: u64) -> Value {
        let mut spec = self.spec.clone();
        spec["Mode"]["Replicated"]["Replicas"] = json!(to);
        spec
    }
}

async fn accepted(answer: Response, what: &str) -> Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let problem: Value = answer.json().await.unwrap_or_default();
    let why = problem["message"].as_str().unwrap_or("no reason given");
    bail!("{what}: Docker answers {status}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_changes() {
        let service = json!({
            "ID": "abc", "Version": {"Index": 7},
            "Spec": {
                "Name": "w", "Mode": {"Replicated": {"Replicas": 2}},
                "TaskTemplate": {"ContainerSpec": {
                    "StopGracePeriod": 90_000_000_000_u64, "Healthcheck": {"Test": ["NONE"]}, "New": [1],
                }},
            },
        });
        let pool = Pool::read(service.clone()).unwrap();
        assert_eq!((pool.replicas, pool.version), (2, 7));
        assert_eq!(pool.stop_grace, Duration::from_secs(90));
        let mut expected = service["Spec"].clone();
        expected["Mode"]["Replicated"]["Replicas"] = json!(5);
        assert_eq!(pool.resized(5), expected);
        let global =
            json!({"ID": "abc", "Version": {"Index": 7}, "Spec": {"Mode": {"Global": {}}}});
        assert!(Pool::read(global).is_err());
    }
}
