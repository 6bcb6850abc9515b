//! Signing in elsewhere: at a real OpenID Connect provider, and at a GitHub that follows a script.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Mutex;

use axum::routing::{get, post};
use axum::{Json, Router};
use clawlink::auth::principal::KeyRole;
use clawlink::auth::settings::Registration;
use clawlink::config::Settings;
use clawlink_shared::secret::Secret;
use reqwest::redirect::Policy;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::app::TestApp;
use super::client::refusal;
use super::people::makers::Squatter;

/// Where people open this installation; the browser of the tests knows where it really is.
const PUBLIC: &str = "http://clawlink.test";

/// A provider as a process; it ends with the test.
struct Provider {
    issuer: String,
    // Nobody reads on, but who writes to a closed pipe ends.
    _output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Provider {
    async fn start() -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oidc");
        let mut process = Command::new("node")
            .arg(format!("{folder}/provider.mjs"))
            .arg(format!("{PUBLIC}/api/auth/oidc/oidc/callback"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let issuer = lines.next_line().await.unwrap();
        Self {
            issuer: issuer.expect("./deploy/test installs the provider by `npm ci`"),
            _output: lines,
            _process: process,
        }
    }

    async fn app(&self, change: impl FnOnce(&mut Settings)) -> TestApp {
        TestApp::start_with(|settings| {
            settings.sign_in.public_url = Some(PUBLIC.to_owned());
            settings.sign_in.oidc_issuer = Some(self.issuer.clone());
            settings.sign_in.oidc_client_id = Some("clawlink".to_owned());
            settings.sign_in.oidc_client_secret = Some(Secret::new("secret-of-tests"));
            change(settings);
        })
        .await
    }
}

/// A browser: keeps cookies, follows nothing by itself.
struct Browser<'a> {
    test: &'a TestApp,
    http: reqwest::Client,
    cookies: Mutex<BTreeMap<String, String>>,
}

impl<'a> Browser<'a> {
    fn new(test: &'a TestApp) -> Self {
        let http = reqwest::Client::builder().redirect(Policy::none());
        Self {
            test,
            http: http.build().unwrap(),
            cookies: Mutex::default(),
        }
    }

    async fn open(&self, method: Method, url: &str, form: &[(&str, &str)]) -> Response {
        let url = match url.strip_prefix(PUBLIC) {
            Some(path) => self.test.url(path),
            None => url.to_owned(),
        };
        let cookies = self.cookies.lock().unwrap().clone();
        let cookies: Vec<String> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let request = self
            .http
            .request(method, url)
            .header("cookie", cookies.join("; "));
        let body: Vec<String> = form.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let request = match form {
            [] => request,
            _ => request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body.join("&")),
        };
        let answer = request.send().await.unwrap();
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies
                .lock()
                .unwrap()
                .insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    async fn go(&self, url: &str) -> Response {
        self.open(Method::GET, url, &[]).await
    }

    /// Signs in at the provider and gives the address that it sends back to.
    async fn to_the_provider_and_back(&self, query: &str, login: &str) -> String {
        let begin = format!("{PUBLIC}/api/auth/oidc/oidc/login{query}");
        let form = location(&self.go(&begin).await);
        let form = location(&self.go(&form).await);
        let fields = [("prompt", "login"), ("login", login), ("password", "x")];
        let next = location(&self.open(Method::POST, &form, &fields).await);
        let back = location(&self.go(&next).await);
        assert!(back.starts_with(PUBLIC), "{back}");
        back
    }

    /// The whole way, without an own place to return to.
    async fn sign_in(&self, login: &str) -> Response {
        let back = self.to_the_provider_and_back("", login).await;
        self.go(&back).await
    }
}

/// Where it leads; providers answer with paths of their own.
fn location(answer: &Response) -> String {
    assert_eq!(answer.status(), 303);
    let to = answer.headers()["location"].to_str().unwrap();
    answer.url().join(to).unwrap().into()
}

async fn signed_in(answer: Response) -> Value {
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

#[tokio::test]
async fn people_sign_in_at_a_provider() {
    let provider = Provider::start().await;
    let test = provider.app(|_| {}).await;
    let listed = test
        .http
        .get(test.url("/api/auth/providers"))
        .send()
        .await
        .unwrap();
    let listed: Value = listed.json().await.unwrap();
    assert_eq!(
        listed["providers"][0]["loginUrl"],
        "/api/auth/oidc/oidc/login"
    );
    let first = signed_in(Browser::new(&test).sign_in("ann@example.org").await).await;
    assert_eq!(first["user"]["email"], "ann@example.org");
    assert_eq!(first["user"]["displayName"], "A Person");
    assert_eq!(first["user"]["isPlatformAdmin"], true);
    // The same account elsewhere is the same account here.
    let again = signed_in(Browser::new(&test).sign_in("ann@example.org").await).await;
    assert_eq!(again["user"]["id"], first["user"]["id"]);
    let me = test.as_(
        again["token"].as_str().unwrap(),
        Method::GET,
        "/api/auth/me",
    );
    assert_eq!(me.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_invited_address_that_a_provider_verified_is_a_member() {
    let provider = Provider::start().await;
    let test = provider.app(|_| {}).await;
    let (workspace, key) = test.key_for("team", KeyRole::Admin).await;
    let (full, other) = test.key_for("full", KeyRole::Admin).await;
    for (workspace, key) in [(workspace, &key), (full, &other)] {
        let path = format!("/api/tenants/{workspace}/members");
        let invite = test.as_(key.expose(), Method::POST, &path);
        let body = json!({"email": "ann@example.org", "role": "developer"});
        assert_eq!(invite.json(&body).send().await.unwrap().status(), 200);
    }
    sqlx::query(
        "with made as (
            insert into users (id, email, username)
            select gen_random_uuid(), n || '@example.com', 'u' || n from generate_series(1, 1000) n
            returning id)
         insert into members (workspace_id, user_id, role) select $1, id, 'viewer' from made",
    )
    .bind(full.0)
    .execute(test.db())
    .await
    .unwrap();
    let ann = signed_in(Browser::new(&test).sign_in("ann@example.org").await).await;
    let mine = test.as_(
        ann["token"].as_str().unwrap(),
        Method::GET,
        "/api/auth/my-tenants",
    );
    let mine: Value = mine.send().await.unwrap().json().await.unwrap();
    // The one that has no room is not there, and keeps nobody out.
    let slugs: Vec<&str> = mine["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tenant| tenant["slug"].as_str().unwrap())
        .collect();
    assert_eq!(slugs, ["team"]);
}

#[tokio::test]
async fn a_browser_comes_back_to_where_it_wanted_to_go() {
    let provider = Provider::start().await;
    let test = provider.app(|_| {}).await;
    let browser = Browser::new(&test);
    let query = "?returnTo=%2Ftasks%3Fx%3D1";
    let back = browser
        .to_the_provider_and_back(query, "ann@example.org")
        .await;
    let answer = browser.go(&back).await;
    assert_eq!(answer.headers()["location"], "/tasks?x=1");
    let refresh = format!("{PUBLIC}/api/auth/refresh");
    let refreshed = browser.open(Method::POST, &refresh, &[]).await;
    assert_eq!(
        signed_in(refreshed).await["user"]["email"],
        "ann@example.org"
    );
    for elsewhere in [
        "%2F%2Fevil.test",
        "https%3A%2F%2Fevil.test",
        "%2F%5Cevil.test",
    ] {
        let path = format!("/api/auth/oidc/oidc/login?returnTo={elsewhere}");
        assert_eq!(refusal(browser.http.get(test.url(&path))).await.0, 400);
    }
}

#[tokio::test]
async fn a_sign_in_ends_in_the_browser_that_began_it() {
    let provider = Provider::start().await;
    let test = provider.app(|_| {}).await;
    let own = Browser::new(&test);
    let back = own.to_the_provider_and_back("", "ann@example.org").await;
    // Somebody who gets hold of the address, in another browser.
    let other = Browser::new(&test);
    assert_eq!(other.go(&back).await.status(), 401);
    // Somebody who began too, and is sent there.
    other
        .go(&format!("{PUBLIC}/api/auth/oidc/oidc/login"))
        .await;
    assert_eq!(other.go(&back).await.status(), 401);
    signed_in(own.go(&back).await).await;
    // The code served once, and so did the cookie.
    assert_eq!(own.go(&back).await.status(), 401);
    let refused = format!("{PUBLIC}/api/auth/oidc/oidc/callback?error=access_denied&state=x");
    assert_eq!(own.go(&refused).await.status(), 401);
    let unknown = test.http.get(test.url("/api/auth/oidc/nobody/login"));
    assert_eq!(refusal(unknown).await.0, 404);
}

#[tokio::test]
async fn only_a_verified_address_joins_an_account() {
    let provider = Provider::start().await;
    let test = provider.app(|_| {}).await;
    let register = |name: &str| {
        let body = json!({"email": format!("{name}@example.org"), "username": name, "password": "correct horse"});
        let request = test
            .http
            .post(test.url("/api/auth/web/register"))
            .json(&body);
        async { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let before = register("ann").await;
    register("unverified").await;
    let refused = Browser::new(&test).sign_in("unverified@example.org").await;
    assert_eq!(refused.status(), 403);
    let joined = signed_in(Browser::new(&test).sign_in("ann@example.org").await).await;
    assert_eq!(joined["user"]["id"], before["user"]["id"]);
    // Nobody had proven that the address is theirs: whoever registered it is out.
    let me = test.as_(
        before["token"].as_str().unwrap(),
        Method::GET,
        "/api/auth/me",
    );
    assert_eq!(me.send().await.unwrap().status(), 401);
    let body = json!({"email": "ann@example.org", "password": "correct horse"});
    let login = test.http.post(test.url("/api/auth/web/login")).json(&body);
    assert_eq!(refusal(login).await.0, 401);
    sqlx::query("update users set disabled_at = now()")
        .execute(test.db())
        .await
        .unwrap();
    let disabled = Browser::new(&test).sign_in("ann@example.org").await;
    assert_eq!(disabled.status(), 401);
}

#[tokio::test]
async fn whose_the_address_is_shares_the_account_with_nobody() {
    let provider = Provider::start().await;
    let test = provider.app(|_| {}).await;
    let squatter = Squatter::settle(&test, "ann@example.org").await;
    let joined = signed_in(Browser::new(&test).sign_in("ann@example.org").await).await;
    squatter
        .must_be_out(&test, joined["token"].as_str().unwrap())
        .await;
}

#[tokio::test]
async fn closed_registration_is_closed_here_too() {
    let provider = Provider::start().await;
    let test = provider
        .app(|settings| settings.sign_in.registration = Registration::Closed)
        .await;
    let refused = Browser::new(&test).sign_in("ann@example.org").await;
    assert_eq!(refused.status(), 403);
    let people: i64 = sqlx::query_scalar("select count(*) from users")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(people, 0);
}

/// The fields of a form or query.
fn fields(text: &str) -> BTreeMap<String, String> {
    let fields = openidconnect::url::form_urlencoded::parse(text.as_bytes());
    fields.into_owned().collect()
}

/// GitHub's three answers; the code is the account's name, and the verifier must have come.
async fn github() -> String {
    let token = |body: String| async move {
        let form = fields(&body);
        let is_good = form["client_secret"] == "secret-of-tests"
            && form["code_verifier"].len() >= 43
            && form["redirect_uri"].starts_with(PUBLIC);
        match is_good {
            // It answers 200 with an error, as GitHub does.
            false => Json(json!({"error": "bad_verification_code"})),
            true => Json(json!({
                "access_token": form["code"], "token_type": "bearer", "scope": "user:email",
            })),
        }
    };
    let named = |headers: axum::http::HeaderMap| {
        let shown = headers["authorization"].to_str().unwrap().to_owned();
        assert!(headers.contains_key("user-agent"));
        shown.trim_start_matches("Bearer ").to_owned()
    };
    let user = move |headers| {
        let login = named(headers);
        async move { Json(json!({"id": login.len(), "login": login, "name": null})) }
    };
    let emails = move |headers| {
        let login = named(headers);
        async move {
            Json(json!([
                {"email": "other@example.org", "primary": false, "verified": true},
                {"email": format!("{login}@example.org"), "primary": true, "verified": login != "eve"},
            ]))
        }
    };
    let router = Router::new()
        .route("/login/oauth/access_token", post(token))
        .route("/api/user", get(user))
        .route("/api/user/emails", get(emails));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

#[tokio::test]
async fn people_sign_in_with_github() {
    let site = github().await;
    let test = TestApp::start_with(|settings| {
        settings.sign_in.public_url = Some(PUBLIC.to_owned());
        settings.sign_in.github_site = site.clone();
        settings.sign_in.github_client_id = Some("clawlink".to_owned());
        settings.sign_in.github_client_secret = Some(Secret::new("secret-of-tests"));
        settings.github.github_api = format!("{site}/api");
    })
    .await;
    let sign_in = async |login: &str| {
        let browser = Browser::new(&test);
        let to = location(
            &browser
                .go(&format!("{PUBLIC}/api/auth/oidc/github/login"))
                .await,
        );
        let asked = fields(to.split_once('?').unwrap().1);
        assert!(
            to.starts_with(&format!("{site}/login/oauth/authorize?")),
            "{to}"
        );
        assert_eq!(asked["code_challenge_method"], "S256");
        assert_eq!(asked["scope"], "read:user user:email");
        let state = &asked["state"];
        let back = format!("{PUBLIC}/api/auth/oidc/github/callback?code={login}&state={state}");
        browser.go(&back).await
    };
    let ann = signed_in(sign_in("ann").await).await;
    assert_eq!(ann["user"]["email"], "ann@example.org");
    assert_eq!(ann["user"]["username"], "ann");
    let again = signed_in(sign_in("ann").await).await;
    assert_eq!(again["user"]["id"], ann["user"]["id"]);
    // GitHub has not verified this one's address.
    sqlx::query("delete from identities")
        .execute(test.db())
        .await
        .unwrap();
    assert_eq!(sign_in("eve").await.status(), 403);
}
