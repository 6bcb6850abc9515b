//! What containers run: the S3 endpoint alone, the health check, copies of archives.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};

use bytes::Bytes;
use clawlink::blobs::Blobs;
use clawlink::config::S3Settings;
use clawlink::objects::{self, Copied, Keys};
use clawlink::probe::WITHIN;
use clawlink::up::data_dir::DataDir;
use clawlink::up::s3::{self, REGION, S3Server};
use clawlink_shared::secret::Secret;
use rustix::process::{Pid, Signal, kill_process};

use super::running::CLAWLINK;
use super::scratch;
use crate::wait::eventually;

const KEYS: (&str, &str) = ("access", "a-secret-key");

/// `clawlink s3` with its keys in files, as Docker secrets are.
fn s3_alone(dir: &Path, port: u16) -> Command {
    for (name, value) in [("access", KEYS.0), ("secret", KEYS.1)] {
        std::fs::write(dir.join(name), format!("{value}\n")).unwrap();
    }
    let mut command = Command::new(CLAWLINK);
    command
        .arg("s3")
        .env_clear()
        .env("CLAWLINK_S3_DIR", dir.join("data"))
        .env("CLAWLINK_S3_LISTEN", format!("127.0.0.1:{port}"))
        .env("S3_BUCKET", "own")
        .env("S3_ACCESS_KEY_FILE", dir.join("access"))
        .env("S3_SECRET_KEY_FILE", dir.join("secret"));
    command
}

fn is_healthy(arguments: &[&str]) -> bool {
    let mut command = Command::new(CLAWLINK);
    command.arg("health").args(arguments).env_clear();
    command.output().unwrap().status.success()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn stop(mut child: Child) -> bool {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    child.wait().unwrap().success()
}

fn settings(endpoint: String, bucket: &str, keys: (&str, &str)) -> S3Settings {
    S3Settings {
        s3_endpoint: Some(endpoint),
        s3_public_endpoint: None,
        s3_bucket: bucket.to_owned(),
        s3_access_key: Some(Secret::new(keys.0)),
        s3_secret_key: Some(Secret::new(keys.1)),
        s3_region: REGION.to_owned(),
    }
}

fn of(server: &S3Server) -> Blobs {
    let keys = (server.access_key(), server.secret_key().expose());
    Blobs::new(&settings(server.url(), s3::BUCKET, keys)).unwrap()
}

#[test]
fn health_does_not_wait_for_a_server_that_does_not_answer() {
    // Connections are taken by the system; nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let began = std::time::Instant::now();
    assert!(!is_healthy(&["--url", &url]));
    let took = began.elapsed();
    assert!(took >= WITHIN && took < WITHIN * 3, "{took:?}");
}

#[tokio::test]
async fn s3_alone_keeps_its_objects_and_its_directory_to_itself() {
    let dir = scratch();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let probe = ["--url", &url, "--expect", "403"];
    assert!(!is_healthy(&probe), "nobody listens");
    let server = s3_alone(dir.path(), port).spawn().unwrap();
    eventually("it answers", async || is_healthy(&probe).then_some(())).await;
    assert!(!is_healthy(&["--url", &url]), "403 is not 200");
    let blobs = Blobs::new(&settings(url.clone(), "own", KEYS)).unwrap();
    let kept = Bytes::from_static(b"kept");
    blobs.put("a/b", kept.clone()).await.unwrap();
    let stranger = Blobs::new(&settings(url.clone(), "own", ("access", "other"))).unwrap();
    assert!(stranger.size("a/b").await.is_err());

    let second = s3_alone(dir.path(), free_port()).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && said.contains("served by another process"),
        "{said}"
    );

    assert!(stop(server));
    let server = s3_alone(dir.path(), port).spawn().unwrap();
    eventually("it answers again", async || {
        is_healthy(&probe).then_some(())
    })
    .await;
    let (size, content) = blobs.read("a/b").await.unwrap().unwrap();
    assert_eq!(size, 4);
    assert_eq!(content.collect().await.unwrap().into_bytes(), kept);
    assert!(blobs.read("a/c").await.unwrap().is_none());
    assert!(stop(server));
}

#[tokio::test]
async fn copies_of_objects_are_complete_and_go_on_where_one_stopped() {
    let dirs = [scratch(), scratch()];
    let data = dirs
        .each_ref()
        .map(|dir| DataDir::open(dir.path()).unwrap());
    let (from, to) = (s3::start(&data[0]).await, s3::start(&data[1]).await);
    let (from, to) = (from.unwrap(), to.unwrap());
    let (source, target) = (of(&from), of(&to));
    let large: Bytes = (0..20_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let metadata = "session-x/.session-metadata.json";
    let archive = |turn: u32| format!("session-x/turns/{turn}-l.tar.zst");
    source
        .put(metadata, Bytes::from_static(b"{}"))
        .await
        .unwrap();
    source.put(&archive(1), large.clone()).await.unwrap();
    source.put(&archive(2), Bytes::new()).await.unwrap();
    let mut first = Vec::new();
    let copied = objects::export(&source, &Keys::new(), &mut first).await;
    let all = Copied {
        objects: 3,
        bytes: 20_000_002,
    };
    assert_eq!(copied.unwrap(), all);

    // Other programs read it too.
    let file = dirs[0].path().join("objects.tar");
    std::fs::write(&file, &first).unwrap();
    let listed = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    let mut names = objects::read_keys(&*listed.stdout).await.unwrap();
    assert_eq!(names.len(), 3);
    assert!(names.remove(&archive(1)));
    names.insert(archive(1));

    source
        .put(metadata, Bytes::from_static(b"{1}"))
        .await
        .unwrap();
    source
        .put(&archive(3), Bytes::from_static(b"new"))
        .await
        .unwrap();
    let mut second = Vec::new();
    let copied = objects::export(&source, &names, &mut second).await.unwrap();
    assert_eq!(copied.objects, 2, "what changes, and what is new");

    assert_eq!(objects::import(&target, &*first).await.unwrap(), all);
    let again = objects::import(&target, &*first).await.unwrap();
    assert_eq!(again.objects, 1, "only what may have changed");
    objects::import(&target, &*second).await.unwrap();
    let read = async |key: &str| {
        let (_, content) = target.read(key).await.unwrap().unwrap();
        content.collect().await.unwrap().into_bytes()
    };
    assert_eq!(read(&archive(1)).await, large);
    assert_eq!(read(&archive(3)).await, "new");
    assert_eq!(read(metadata).await, "{1}");
    assert_eq!(target.list("").await.unwrap().len(), 4);
    let cut = objects::import(&target, &first[..first.len() / 2]).await;
    assert!(cut.is_err(), "an archive that is cut off is said");
}

/// A pipe that breaks off after some bytes.
fn broken_pipe(bytes: usize) -> impl tokio::io::AsyncRead + Unpin {
    let read = futures::stream::iter([
        Ok(Bytes::from(vec![7; bytes])),
        Err(std::io::Error::other("broken")),
    ]);
    tokio_util::io::StreamReader::new(read)
}

#[tokio::test]
async fn a_pipe_becomes_one_object_or_none() {
    let dir = scratch();
    let data = DataDir::open(dir.path()).unwrap();
    let server = s3::start(&data).await.unwrap();
    let blobs = of(&server);
    for size in [0_u32, 1, 8 << 20, 20_000_000] {
        let content: Bytes = (0..size).map(|n| (n * 7 % 251) as u8).collect();
        let put = objects::put(&blobs, "backup/a", &*content).await.unwrap();
        assert_eq!(put, u64::from(size));
        let mut read = Vec::new();
        let got = objects::get(&blobs, "backup/a", &mut read).await.unwrap();
        assert_eq!((got, read), (u64::from(size), content.to_vec()));
    }
    let missing = objects::get(&blobs, "backup/b", tokio::io::sink()).await;
    assert!(missing.unwrap_err().to_string().contains("backup/b"));
    for size in [100, 20_000_000] {
        let put = objects::put(&blobs, "backup/b", broken_pipe(size)).await;
        assert!(put.is_err());
    }
    assert_eq!(blobs.size("backup/b").await.unwrap(), None);
    assert!(blobs.open_uploads("backup/b").await.unwrap().is_empty());
}
