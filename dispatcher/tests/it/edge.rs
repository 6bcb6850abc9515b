//! What browsers and busy callers meet: rate limits, origins, headers, the page about the API.

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::json;

use super::app::TestApp;
use super::client::refusal;

const LIMIT: u32 = 100;

fn number(headers: &HeaderMap, name: &str) -> u32 {
    headers[name].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_caller_has_one_limit_on_all_replicas() {
    let test = TestApp::start_with(|settings| settings.tuning.rate_per_minute = LIMIT).await;
    let second = test.second_dispatcher().await;
    let begun = std::time::Instant::now();
    let (mut passed, mut refused) = (0, 0);
    for round in 0..LIMIT * 3 {
        let url = if round % 2 == 0 {
            test.url("/sessions")
        } else {
            format!("{}/sessions", second.url)
        };
        let answer = test.http.get(url).bearer_auth(test.key.expose());
        let answer = answer.send().await.unwrap();
        match answer.status().as_u16() {
            200 => {
                passed += 1;
                assert_eq!(number(answer.headers(), "ratelimit-limit"), LIMIT);
                assert!(number(answer.headers(), "ratelimit-remaining") < LIMIT);
            }
            429 => {
                refused += 1;
                assert!(number(answer.headers(), "retry-after") >= 1);
                let problem: serde_json::Value = answer.json().await.unwrap();
                assert_eq!(problem["error"], "rate_limited");
            }
            other => panic!("{other}"),
        }
    }
    // The bucket fills while the test runs.
    let filled = (begun.elapsed().as_secs_f64() * f64::from(LIMIT) / 60.0).ceil() as u32;
    assert!(passed <= LIMIT + filled, "{passed} passed");
    assert!(passed >= LIMIT / 2 && refused > 0, "{passed} {refused}");

    let (_, other) = test
        .key_for("default", clawlink::auth::principal::KeyRole::Ci)
        .await;
    let answer = test.http.get(test.url("/sessions"));
    let answer = answer.bearer_auth(other.expose()).send().await.unwrap();
    assert_eq!(answer.status(), 200, "another caller has its own");
}

#[tokio::test]
async fn without_redis_each_replica_counts_by_itself() {
    let test = TestApp::start().await;
    let alone = test
        .dispatcher_with(|settings| {
            settings.redis_url = Some("redis://127.0.0.1:1".to_owned().into());
            settings.tuning.rate_per_minute = 3;
        })
        .await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let url = format!("{}/sessions", alone.url);
        let answer = test.http.get(url).bearer_auth(test.key.expose());
        statuses.push(answer.send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[tokio::test]
async fn listed_origins_may_call_and_others_may_not() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.cors_origins = vec!["https://portal.example".parse().unwrap()];
    })
    .await;
    for (origin, allowed) in [
        ("https://portal.example", true),
        ("https://evil.example", false),
    ] {
        let ask = test
            .http
            .request(Method::OPTIONS, test.url("/sessions"))
            .header("origin", origin)
            .header("access-control-request-method", "PATCH");
        let answer = ask.send().await.unwrap();
        let named = answer.headers().get("access-control-allow-origin");
        assert_eq!(named.is_some(), allowed, "{origin}");
        let read = test.get("/sessions").header("origin", origin);
        let read = read.send().await.unwrap();
        let named = read.headers().get("access-control-allow-origin");
        assert_eq!(named.is_some(), allowed, "{origin}");
    }
}

#[tokio::test]
async fn answers_forbid_browsers_what_nobody_needs() {
    let test = TestApp::start().await;
    let answer = test.get("/sessions").send().await.unwrap();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.headers()[name], value);
    }
    let (status, _) = refusal(test.post("/execute").json(&json!({}))).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn the_page_about_the_api_needs_no_network() {
    let test = TestApp::start().await;
    let page = test.get("/docs").send().await.unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'self'"));
    let page = page.text().await.unwrap();
    let mut scripts = 0;
    for source in page.split("src=\"").skip(1) {
        let name = source.split('"').next().unwrap().trim_start_matches("./");
        assert!(!name.contains("//"), "{name} is elsewhere");
        let file = test.get(&format!("/docs/{name}")).send().await.unwrap();
        assert_eq!(file.status(), 200, "{name}");
        scripts += 1;
    }
    assert!(scripts > 0, "{page}");
}

#[tokio::test]
async fn who_only_signed_in_has_a_limit_too() {
    let test = TestApp::start_with(|settings| settings.tuning.rate_per_minute = 5).await;
    let ann = test.person("ann@example.org").await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let answer = test.as_(&ann.token, Method::GET, "/api/admin/tenants");
        statuses.push(answer.send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses[0], 403);
    assert_eq!(statuses[7], 429, "{statuses:?}");
    let told: i64 =
        sqlx::query_scalar("select count(*) from audit_entries where action = 'access.denied'")
            .fetch_one(test.db())
            .await
            .unwrap();
    assert!(told < 8, "{told} entries");
}

#[tokio::test]
async fn other_origins_may_send_proofs_and_read_where_a_list_goes_on() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.cors_origins = vec!["https://portal.example".parse().unwrap()];
    })
    .await;
    let origin =
        |request: reqwest::RequestBuilder| request.header("origin", "https://portal.example");
    let ask = test.http.request(Method::OPTIONS, test.url("/sessions"));
    let ask = origin(ask).header("access-control-request-method", "GET");
    let list = |headers: &HeaderMap, name: &str| headers[name].to_str().unwrap().to_lowercase();
    let allowed = ask.send().await.unwrap();
    let allowed = list(allowed.headers(), "access-control-allow-headers");
    for part in ["id", "timestamp", "nonce", "signature"] {
        assert!(allowed.contains(&format!("x-device-{part}")), "{allowed}");
    }
    let read = origin(test.get("/sessions")).send().await.unwrap();
    let exposed = list(read.headers(), "access-control-expose-headers");
    assert!(exposed.contains("link"), "{exposed}");
}
