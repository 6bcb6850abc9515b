//! The private servers as functions: started, crashed and started again.

use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use clawlink::up::data_dir::DataDir;
use clawlink::up::s3::{BUCKET, REGION, S3Server};
use clawlink::up::{postgres, redis, s3};
use sqlx::{Connection, PgConnection};

use super::{mode, scratch};

fn s3_client(server: &S3Server) -> aws_sdk_s3::Client {
    let keys = Credentials::new(
        server.access_key(),
        server.secret_key().expose(),
        None,
        None,
        "test",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(server.url())
        .force_path_style(true)
        .credentials_provider(keys)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

#[tokio::test]
async fn postgres_keeps_its_data_over_stop_crash_and_restart() {
    let dir = scratch();
    let data = DataDir::open(dir.path()).unwrap();
    let mut server = postgres::start(&data, None).await.unwrap();
    let mut client = PgConnection::connect(&server.owner_url()).await.unwrap();
    sqlx::query("create table kept as select 7 as n")
        .execute(&mut client)
        .await
        .unwrap();
    let url = server.owner_url();
    server.restart().await.unwrap();
    assert_eq!(server.owner_url(), url, "the port is kept");
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    // As in a data directory from before there was such a role.
    let mut client = PgConnection::connect(&url).await.unwrap();
    sqlx::query("drop role clawlink_app")
        .execute(&mut client)
        .await
        .unwrap();
    server.stop().await.unwrap();
    let mut server = postgres::start(&data, None).await.unwrap();
    assert_eq!(server.owner_url(), url);
    let mut client = PgConnection::connect(&url).await.unwrap();
    let n: i32 = sqlx::query_scalar("select n from kept")
        .fetch_one(&mut client)
        .await
        .unwrap();
    assert_eq!(n, 7);
    let fsync: String = sqlx::query_scalar("show fsync")
        .fetch_one(&mut client)
        .await
        .unwrap();
    assert_eq!(fsync, "on");
    let mut application = PgConnection::connect(&server.url()).await.unwrap();
    let refused = sqlx::query("create table mine (n int)").execute(&mut application);
    assert!(refused.await.is_err(), "the application owns nothing");
    for url in [url, server.url()] {
        let wrong = url.replace("@", "x@");
        assert!(
            PgConnection::connect(&wrong).await.is_err(),
            "the password is checked"
        );
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn redis_asks_for_a_password_and_restarts_empty() {
    let dir = scratch();
    let data = DataDir::open(dir.path()).unwrap();
    let mut server = redis::start(&data).await.unwrap();
    let url = server.url();
    let connect = async |url: String| {
        let client = ::redis::Client::open(url).unwrap();
        client.get_multiplexed_async_connection().await
    };
    let mut client = connect(url.clone()).await.unwrap();
    let () = ::redis::cmd("SET")
        .arg("k")
        .arg(1)
        .query_async(&mut client)
        .await
        .unwrap();
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    let mut client = connect(url.clone()).await.unwrap();
    let gone: Option<i32> = ::redis::cmd("GET")
        .arg("k")
        .query_async(&mut client)
        .await
        .unwrap();
    assert_eq!(gone, None);
    let open = url.split_once('@').unwrap().1;
    let mut anonymous = connect(format!("redis://{open}")).await.unwrap();
    let refused: Result<(), _> = ::redis::cmd("PING").query_async(&mut anonymous).await;
    assert!(refused.is_err());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn s3_answers_signed_requests_only() {
    let dir = scratch();
    let data = DataDir::open(dir.path()).unwrap();
    let mut server = s3::start(&data).await.unwrap();
    let client = s3_client(&server);
    let body = ByteStream::from_static(b"one");
    client
        .put_object()
        .bucket(BUCKET)
        .key("a/b.txt")
        .body(body)
        .send()
        .await
        .unwrap();

    let http = reqwest::Client::new();
    let plain = format!("{}/{BUCKET}/a/b.txt", server.url());
    assert_eq!(http.get(&plain).send().await.unwrap().status(), 403);
    assert_eq!(
        http.put(&plain).body("two").send().await.unwrap().status(),
        403
    );
    assert_eq!(http.get(server.url()).send().await.unwrap().status(), 403);

    let soon = || PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("a/c.txt")
        .presigned(soon())
        .await
        .unwrap();
    assert_eq!(
        http.put(put.uri())
            .body("three")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let get = client
        .get_object()
        .bucket(BUCKET)
        .key("a/c.txt")
        .presigned(soon())
        .await
        .unwrap();
    assert_eq!(
        http.get(get.uri())
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "three"
    );
    let forged = get.uri().replace("c.txt", "b.txt");
    assert_eq!(http.get(forged).send().await.unwrap().status(), 403);

    server.restart().await.unwrap();
    let again = client
        .get_object()
        .bucket(BUCKET)
        .key("a/b.txt")
        .send()
        .await
        .unwrap();
    assert_eq!(again.body.collect().await.unwrap().to_vec(), b"one");
    let conditional = client
        .put_object()
        .bucket(BUCKET)
        .key("a/b.txt")
        .if_none_match("*");
    assert!(
        conditional.send().await.is_err(),
        "a condition that could race is refused"
    );
    assert!(client.create_bucket().bucket("other").send().await.is_err());
    assert!(
        client
            .get_object()
            .bucket("other")
            .key("x")
            .send()
            .await
            .is_err()
    );
    server.stop().await;
}

#[tokio::test]
async fn s3_takes_archives_in_parts() {
    let dir = scratch();
    let data = DataDir::open(dir.path()).unwrap();
    let mut server = s3::start(&data).await.unwrap();
    let client = s3_client(&server);
    let http = reqwest::Client::new();
    let key = "session-x/turns/1-l.tar.zst";
    let upload = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(key)
        .send()
        .await
        .unwrap();
    let id = upload.upload_id().unwrap();
    let mut parts = Vec::new();
    for (number, size) in [(1, 5 << 20), (2, 17)] {
        let soon = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let part = client
            .upload_part()
            .bucket(BUCKET)
            .key(key)
            .upload_id(id)
            .part_number(number);
        let url = part.presigned(soon).await.unwrap();
        let answer = http
            .put(url.uri())
            .body(vec![b'x'; size])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
        parts.push(
            aws_sdk_s3::types::CompletedPart::builder()
                .part_number(number)
                .e_tag(etag)
                .build(),
        );
    }
    let all = aws_sdk_s3::types::CompletedMultipartUpload::builder()
        .set_parts(Some(parts))
        .build();
    let complete = client
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key(key)
        .upload_id(id);
    complete.multipart_upload(all).send().await.unwrap();
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key(key)
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_length(), Some((5 << 20) + 17));
    let neighbour = client.put_object().bucket(BUCKET).key("session-y/z");
    neighbour.send().await.unwrap();
    let delete = client.delete_object().bucket(BUCKET).key(key);
    delete.send().await.unwrap();
    let folders = std::fs::read_dir(data.path("s3").join(BUCKET)).unwrap();
    let folders: Vec<_> = folders.map(|folder| folder.unwrap().file_name()).collect();
    assert_eq!(folders, ["session-y"], "no empty folder stays");
    server.stop().await;
}

#[tokio::test]
async fn a_data_directory_is_used_once_and_keeps_its_secrets() {
    let dir = scratch();
    let data = DataDir::open(dir.path()).unwrap();
    let refused = DataDir::open(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("in use by another clawlink"), "{refused}");
    let first = data.secret("seal-key").unwrap().expose().to_owned();
    let port = data.port("postgres").unwrap();
    drop(data);
    let data = DataDir::open(dir.path()).unwrap();
    assert_eq!(data.secret("seal-key").unwrap().expose(), first);
    assert_eq!(data.port("postgres").unwrap(), port);
    assert_eq!(first.len(), 64);
    assert_eq!(mode(&data.path("secrets")), 0o700);
    assert_eq!(mode(&data.path("secrets/seal-key")), 0o600);
}

#[tokio::test]
async fn two_installations_run_side_by_side() {
    let dirs = [scratch(), scratch()];
    let mut servers = Vec::new();
    for dir in &dirs {
        let data = DataDir::open(dir.path()).unwrap();
        servers.push((
            postgres::start(&data, None).await.unwrap(),
            redis::start(&data).await.unwrap(),
        ));
    }
    assert_ne!(servers[0].0.url(), servers[1].0.url());
    assert_ne!(servers[0].1.url(), servers[1].1.url());
    for (postgres, redis) in &mut servers {
        redis.stop().await.unwrap();
        postgres.stop().await.unwrap();
    }
}
