//! Looking for a secret in everything that an installation keeps.

use std::io::{Read, Write as _};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use futures::StreamExt;
use redis::Value as Reply;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::world::World;
use crate::app::{required, scratch};

/// Places and what is kept there.
pub(super) type Hay = Vec<(String, Vec<u8>)>;

/// A listener to channels.
pub(super) struct Overheard {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Hay>,
}

impl Overheard {
    /// What was published meanwhile; something was.
    pub(super) async fn stop(self) -> Hay {
        drop(self.stop);
        let hay = self.task.await.unwrap();
        assert!(!hay.is_empty(), "nothing was published");
        hay
    }
}

/// Fails the test when one of the secrets stands somewhere, in any usual spelling.
pub(super) fn assert_absent(hay: &Hay, secrets: &[&str]) {
    for secret in secrets {
        for needle in spellings(secret) {
            for (place, bytes) in hay {
                let found = bytes.windows(needle.len()).position(|part| part == needle);
                if let Some(at) = found {
                    let around = &bytes[at.saturating_sub(80)..(at + 120).min(bytes.len())];
                    panic!("a secret in {place}: {}", String::from_utf8_lossy(around));
                }
            }
        }
    }
}

fn spellings(secret: &str) -> Vec<Vec<u8>> {
    let json = serde_json::to_string(secret).unwrap();
    let url: String = secret
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let mut all = vec![secret.to_owned(), json[1..json.len() - 1].to_owned(), url];
    for shift in 0..3 {
        let mut bytes = vec![b' '; shift];
        bytes.extend(secret.bytes());
        let whole = bytes.len() / 3 * 4;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            // Without the characters at both ends, which depend on what stands around it.
            all.push(engine.encode(&bytes)[4..whole].to_owned());
        }
    }
    all.into_iter().map(String::into_bytes).collect()
}

impl World {
    /// All that Postgres (but for sealed credentials), Redis, S3 and the git host hold.
    pub(super) async fn everything(&self) -> Hay {
        let mut hay = self.postgres().await;
        let rows = hay.len();
        hay.extend(self.redis().await);
        let objects = self.objects().await;
        assert!(
            rows > 10 && !objects.is_empty(),
            "there is something to search"
        );
        hay.extend(objects);
        for repository in ["app"] {
            if self.git.path(repository).exists() {
                let all = ["cat-file", "--batch-all-objects", "--batch"];
                let refs = ["for-each-ref"];
                for what in [all.as_slice(), &refs] {
                    let text = self.git.ask(repository, what).await.unwrap();
                    hay.push((format!("git {what:?}"), text.into_bytes()));
                }
            }
        }
        hay
    }

    async fn postgres(&self) -> Hay {
        let tables: Vec<String> = sqlx::query_scalar(
            "select table_name::text from information_schema.tables
             where table_schema = 'public' and table_type = 'BASE TABLE'",
        )
        .fetch_all(self.app.db())
        .await
        .unwrap();
        let mut hay = Hay::new();
        for table in tables {
            let sealed = if table == "credentials" { "sealed" } else { "" };
            let query = format!("select to_jsonb(t) - '{sealed}' from {table} t");
            let rows: Vec<Value> = sqlx::query_scalar(AssertSqlSafe(query))
                .fetch_all(self.app.db())
                .await
                .unwrap();
            for row in rows {
                for (column, value) in row.as_object().unwrap() {
                    let text = match value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    let bytes = text.strip_prefix("\\x").and_then(from_hex);
                    let bytes = bytes.unwrap_or_else(|| text.into_bytes());
                    hay.push((format!("{table}.{column}"), bytes));
                }
            }
        }
        hay
    }

    async fn redis(&self) -> Hay {
        let client = redis::Client::open(required("REDIS_URL")).unwrap();
        let mut db = client.get_multiplexed_async_connection().await.unwrap();
        let pattern = format!("{}*", self.app.redis_prefix());
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(pattern)
            .query_async(&mut db)
            .await
            .unwrap();
        let mut hay = Hay::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE")
                .arg(&key)
                .query_async(&mut db)
                .await
                .unwrap();
            let (command, rest): (&str, &[&str]) = match kind.as_str() {
                "string" => ("GET", &[]),
                "hash" => ("HGETALL", &[]),
                "set" => ("SMEMBERS", &[]),
                "list" => ("LRANGE", &["0", "-1"]),
                "zset" => ("ZRANGE", &["0", "-1"]),
                "stream" => ("XRANGE", &["-", "+"]),
                _ => continue,
            };
            let mut call = redis::cmd(command);
            call.arg(&key).arg(rest);
            let reply: Reply = call.query_async(&mut db).await.unwrap();
            let mut bytes = key.clone().into_bytes();
            flatten(reply, &mut bytes);
            hay.push((format!("redis {key}"), bytes));
        }
        hay
    }

    /// Listens to what is published in this installation.
    pub(super) async fn overhear(&self) -> Overheard {
        let client = redis::Client::open(required("REDIS_URL")).unwrap();
        let mut channel = client.get_async_pubsub().await.unwrap();
        let pattern = format!("{}*", self.app.redis_prefix());
        channel.psubscribe(pattern).await.unwrap();
        let (stop, mut is_stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut hay = Hay::new();
            let mut messages = channel.into_on_message();
            loop {
                tokio::select! {
                    biased;
                    Some(message) = messages.next() => {
                        hay.push(("a Redis channel".into(), message.get_payload_bytes().to_vec()));
                    }
                    _ = &mut is_stopped => return hay,
                }
            }
        });
        Overheard { stop, task }
    }

    async fn objects(&self) -> Hay {
        let mut hay = Hay::new();
        for key in self.app.app().blobs.list("").await.unwrap() {
            let url = self.app.app().blobs.presign_get(&key).await.unwrap();
            let answer = self.app.http.get(url.expose()).send().await.unwrap();
            let bytes = answer.bytes().await.unwrap();
            let mut plain = Vec::new();
            if key.ends_with(".zst") {
                let mut decoder = zstd::Decoder::new(bytes.as_ref()).unwrap();
                decoder.read_to_end(&mut plain).unwrap();
                hay.push((format!("git objects in s3 {key}"), objects_of_git(&plain)));
            }
            hay.push((format!("s3 {key}"), [bytes.to_vec(), plain].concat()));
        }
        hay
    }
}

/// Every object of git in an archive, inflated, whether something leads to it or not.
fn objects_of_git(archive: &[u8]) -> Vec<u8> {
    let folder = scratch();
    let mut tar = Command::new("tar")
        .args(["-x", "--no-same-owner", "-C"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(archive).unwrap();
    assert!(tar.wait().unwrap().success());
    let mut all = Vec::new();
    let mut waiting = vec![folder.path().to_owned()];
    while let Some(path) = waiting.pop() {
        if path.join("objects").is_dir() && path.join("HEAD").is_file() {
            let output = Command::new("git")
                .args([
                    "-c",
                    "safe.directory=*",
                    "cat-file",
                    "--batch-all-objects",
                    "--batch",
                ])
                .env("GIT_DIR", &path)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            all.extend(output.stdout);
        }
        let entries = path.read_dir().unwrap().map(|entry| entry.unwrap());
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        waiting.extend(folders.map(|entry| entry.path()));
    }
    all
}

fn flatten(reply: Reply, into: &mut Vec<u8>) {
    match reply {
        Reply::BulkString(bytes) => {
            into.push(b' ');
            into.extend(bytes);
        }
        Reply::Array(items) | Reply::Set(items) => {
            items.into_iter().for_each(|item| flatten(item, into));
        }
        Reply::Map(pairs) => {
            for (key, value) in pairs {
                flatten(key, into);
                flatten(value, into);
            }
        }
        other => into.extend(format!(" {other:?}").into_bytes()),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
