//! People: registering, signing in, tokens and what ends them.

use clawlink::auth::principal::MemberRole;
use clawlink::auth::settings::Registration;
use clawlink::auth::{self};
use clawlink::bus::RightsOf;
use reqwest::Method;
use serde_json::{Value, json};

use super::app::TestApp;
use super::client::{Stream, refusal};
use super::wait::{eventually, is_lock_awaited};

async fn register(test: &TestApp, name: &str) -> Value {
    let answer = test.http.post(test.url("/api/auth/web/register"));
    let answer = answer.json(&account(name)).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.json().await.unwrap()
}

fn account(name: &str) -> Value {
    json!({"email": format!("{name}@Example.org"), "username": name, "password": "correct horse"})
}

async fn answer(request: reqwest::RequestBuilder, status: u16) -> Value {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), status);
    answer.json().await.unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_person_runs_the_installation_and_owns_the_first_workspace() {
    let test = TestApp::start().await;
    let first = register(&test, "Ann").await;
    assert_eq!(first["user"]["email"], "ann@example.org");
    assert_eq!(first["user"]["username"], "ann");
    assert_eq!(first["user"]["isPlatformAdmin"], true);
    assert_eq!(first["user"]["bio"], Value::Null);
    assert_eq!(first["expiresIn"], 86_400);
    let second = register(&test, "ben").await;
    assert_eq!(second["user"]["isPlatformAdmin"], false);

    let web = text(&first["token"]);
    let mine = answer(test.as_(&web, Method::GET, "/api/auth/my-tenants"), 200).await;
    assert_eq!(mine["tenants"][0]["slug"], "default");
    assert_eq!(mine["tenants"][0]["role"], "owner");
    // The portal sends the id as a string and finds it again in the token.
    let id = mine["tenants"][0]["id"].as_i64().unwrap();
    let choose = test.as_(&web, Method::POST, "/api/auth/tenant-token");
    let chosen = answer(choose.json(&json!({"tenantId": id.to_string()})), 200).await;
    assert_eq!(chosen["expiresIn"], 3_600);
    let token = text(&chosen["token"]);
    answer(test.as_(&token, Method::GET, "/sessions"), 200).await;
    let me = answer(test.as_(&token, Method::GET, "/api/auth/me"), 200).await;
    assert_eq!(me["user"]["username"], "ann");
}

#[tokio::test]
async fn many_who_come_first_make_one_admin() {
    let test = TestApp::start().await;
    let names: Vec<String> = (0..12).map(|n| format!("p{n}")).collect();
    let made = names.iter().map(|name| register(&test, name));
    let made = futures::future::join_all(made).await;
    let admins = made
        .iter()
        .filter(|made| made["user"]["isPlatformAdmin"] == true);
    assert_eq!(admins.count(), 1);
    let members: i64 = sqlx::query_scalar("select count(*) from members")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(members, 1);
}

#[tokio::test]
async fn registration_closes() {
    let test = TestApp::start_with(|settings| {
        settings.sign_in.registration = Registration::First;
    })
    .await;
    let tries = (0..6).map(|n| {
        let request = test.http.post(test.url("/api/auth/web/register"));
        request.json(&account(&format!("p{n}"))).send()
    });
    let tries = futures::future::join_all(tries).await;
    let mut statuses: Vec<u16> = tries
        .into_iter()
        .map(|answer| answer.unwrap().status().as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403, 403, 403, 403, 403]);
    // Who comes later is told so before anything is computed of the password.
    let mut late = account("late");
    late["password"] = json!("short");
    let request = test.http.post(test.url("/api/auth/web/register"));
    assert_eq!(refusal(request.json(&late)).await.0, 403);
}

#[tokio::test]
async fn names_are_unique_whatever_their_case() {
    let test = TestApp::start().await;
    register(&test, "ann").await;
    let post = |body: Value| {
        test.http
            .post(test.url("/api/auth/web/register"))
            .json(&body)
    };
    let mut other = account("other");
    other["email"] = json!("ANN@example.org");
    let (status, problem) = refusal(post(other)).await;
    assert_eq!((status, &problem["error"]), (409, &json!("email_taken")));
    let mut other = account("other");
    other["username"] = json!("Ann");
    let (status, problem) = refusal(post(other)).await;
    assert_eq!((status, &problem["error"]), (409, &json!("username_taken")));
    for (field, value) in [
        ("email", "no address"),
        ("email", "a\u{0}@b"),
        ("username", ""),
        ("username", "a b"),
        ("password", "short"),
    ] {
        let mut body = account("other");
        body[field] = json!(value);
        assert_eq!(refusal(post(body)).await.0, 400, "{field}: {value:?}");
    }
}

#[tokio::test]
async fn who_fails_to_sign_in_learns_nothing() {
    let test = TestApp::start().await;
    register(&test, "ann").await;
    let login = |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        test.http.post(test.url("/api/auth/web/login")).json(&body)
    };
    let good = answer(login(" Ann@EXAMPLE.org", "correct horse"), 200).await;
    assert_eq!(good["user"]["username"], "ann");
    let wrong = refusal(login("ann@example.org", "wrong horse")).await;
    for (email, password) in [
        ("nobody@example.org", "correct horse"),
        ("no address", "correct horse"),
        ("ann@example.org", ""),
        ("ann@example.org", &"x".repeat(5000)),
    ] {
        assert_eq!(refusal(login(email, password)).await, wrong, "{email}");
    }
    sqlx::query("update users set disabled_at = now()")
        .execute(test.db())
        .await
        .unwrap();
    assert_eq!(
        refusal(login("ann@example.org", "correct horse")).await,
        wrong
    );
}

#[tokio::test]
async fn a_token_of_one_kind_is_not_taken_for_another() {
    let test = TestApp::start().await;
    let member = test.member("default", MemberRole::Owner).await;
    let key = test.key.expose().to_owned();
    for (token, path, status) in [
        (&member.person.token, "/sessions", 401),
        (&member.person.token, "/api/auth/me", 200),
        (&member.token, "/sessions", 200),
        (&member.token, "/api/auth/me", 200),
        (&key, "/sessions", 200),
        (&key, "/api/auth/me", 401),
    ] {
        let answer = test.as_(token, Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    let key_token = test.http.post(test.url("/api/auth/token"));
    let body = json!({"apiKey": key, "tenantId": member.workspace});
    let token = text(&answer(key_token.json(&body), 200).await["token"]);
    answer(test.as_(&token, Method::GET, "/sessions"), 200).await;
    answer(test.as_(&token, Method::GET, "/api/auth/me"), 401).await;
    // Nor for another workspace.
    let other = json!({"apiKey": key, "tenantId": member.workspace.0 + 1});
    let request = test.http.post(test.url("/api/auth/token")).json(&other);
    assert_eq!(refusal(request).await.0, 401);
    sqlx::query("update api_keys set revoked_at = now()")
        .execute(test.db())
        .await
        .unwrap();
    auth::forget(test.app(), RightsOf::Workspace(member.workspace));
    answer(test.as_(&token, Method::GET, "/sessions"), 401).await;
    answer(test.as_(&key, Method::GET, "/sessions"), 401).await;
}

#[tokio::test]
async fn only_members_get_a_workspace_token() {
    let test = TestApp::start().await;
    let member = test.member("default", MemberRole::Viewer).await;
    let (other, _) = test.key_for("other", auth::principal::KeyRole::Admin).await;
    let choose = |tenant: Value| {
        let request = test.as_(&member.person.token, Method::POST, "/api/auth/tenant-token");
        request.json(&json!({"tenantId": tenant}))
    };
    answer(choose(json!(member.workspace)), 200).await;
    let foreign = refusal(choose(json!(other))).await;
    assert_eq!(foreign.0, 401);
    // One that does not exist answers the same.
    assert_eq!(refusal(choose(json!(999_999))).await, foreign);
    assert_eq!(refusal(choose(json!("x"))).await, foreign);
    assert_eq!(refusal(choose(json!(null))).await.0, 400);
}

#[tokio::test]
async fn a_changed_right_takes_effect_at_once_on_all_replicas() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let member = test.member("default", MemberRole::Developer).await;
    let path = "/sessions/00000000-0000-4000-8000-000000000000";
    let here = || test.as_(&member.token, Method::DELETE, path).send();
    let there = || {
        let request = test.http.delete(format!("{}{path}", second.url));
        request.bearer_auth(&member.token).send()
    };
    assert_eq!(here().await.unwrap().status(), 404);
    assert_eq!(there().await.unwrap().status(), 404);
    for (change, status) in [
        ("update members set role = 'viewer'", 403),
        ("update members set removed_at = now()", 401),
    ] {
        sqlx::query(change).execute(test.db()).await.unwrap();
        auth::forget(test.app(), RightsOf::User(member.person.user));
        assert_eq!(here().await.unwrap().status(), status);
        eventually("the other replica knows", async || {
            (there().await.unwrap().status() == status).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn closed_workspaces_and_disabled_people_are_refused() {
    let test = TestApp::start().await;
    let owner = test.member("default", MemberRole::Owner).await;
    let path = "/sessions/00000000-0000-4000-8000-000000000000";
    let set = async |change: &'static str| {
        sqlx::query(change).execute(test.db()).await.unwrap();
        auth::forget(test.app(), RightsOf::Everyone);
    };
    let statuses = async || {
        let mut seen = Vec::new();
        for token in [owner.token.as_str(), test.key.expose()] {
            for (method, path) in [(Method::GET, "/sessions"), (Method::DELETE, path)] {
                let answer = test.as_(token, method, path).send().await.unwrap();
                seen.push(answer.status().as_u16());
            }
        }
        seen
    };
    assert_eq!(statuses().await, [200, 404, 200, 404]);
    set("update workspaces set status = 'archived'").await;
    assert_eq!(statuses().await, [200, 403, 200, 403]);
    set("update workspaces set status = 'suspended'").await;
    assert_eq!(statuses().await, [200, 403, 200, 403]);
    set("update workspaces set status = 'active'").await;
    set("update users set disabled_at = now()").await;
    assert_eq!(statuses().await, [401, 401, 200, 404]);
}

#[tokio::test]
async fn signing_out_ends_all_tokens_of_the_sign_in() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    let login = || async {
        let body = json!({"email": "ann@example.org", "password": "correct horse"});
        let request = test.http.post(test.url("/api/auth/web/login")).json(&body);
        answer(request, 200).await
    };
    let (second, third) = (login().await, login().await);
    let alive = async |signed_in: &Value| {
        let request = test.as_(
            signed_in["token"].as_str().unwrap(),
            Method::GET,
            "/api/auth/me",
        );
        request.send().await.unwrap().status() == 200
    };
    let out = |signed_in: &Value, path: &str| {
        test.as_(signed_in["token"].as_str().unwrap(), Method::POST, path)
    };
    assert!(alive(&first).await && alive(&second).await);
    answer(out(&first, "/api/auth/logout"), 204).await;
    assert!(!alive(&first).await && alive(&second).await);
    let refresh = test.http.post(test.url("/api/auth/refresh"));
    let refresh = refresh.json(&json!({"refreshToken": first["refreshToken"]}));
    assert_eq!(refusal(refresh).await.0, 401);
    answer(out(&second, "/api/auth/logout/everywhere"), 204).await;
    assert!(!alive(&second).await && !alive(&third).await);
    assert!(alive(&login().await).await);
}

#[tokio::test]
async fn a_new_password_ends_the_other_sign_ins() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    let token = text(&first["token"]);
    let change = |current: &str, new: &str| {
        let body = json!({"currentPassword": current, "newPassword": new});
        test.as_(&token, Method::POST, "/api/auth/password")
            .json(&body)
    };
    assert_eq!(
        refusal(change("wrong horse", "battery staple")).await.0,
        401
    );
    assert_eq!(refusal(change("correct horse", "short")).await.0, 400);
    let changed = answer(change("correct horse", "battery staple"), 200).await;
    answer(test.as_(&token, Method::GET, "/api/auth/me"), 401).await;
    answer(
        test.as_(&text(&changed["token"]), Method::GET, "/api/auth/me"),
        200,
    )
    .await;
    let login = |password: &str| {
        let body = json!({"email": "ann@example.org", "password": password});
        test.http.post(test.url("/api/auth/web/login")).json(&body)
    };
    assert_eq!(refusal(login("correct horse")).await.0, 401);
    answer(login("battery staple"), 200).await;
}

#[tokio::test]
async fn a_refresh_token_serves_once_and_a_stolen_one_ends_the_sign_in() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    let refresh = |token: &Value| {
        let request = test.http.post(test.url("/api/auth/refresh"));
        request.json(&json!({"refreshToken": token}))
    };
    let second = answer(refresh(&first["refreshToken"]), 200).await;
    assert_ne!(first["refreshToken"], second["refreshToken"]);
    let web = text(&second["token"]);
    // At once it may be a race of one client with itself: refused, and nothing ends.
    let (status, problem) = refusal(refresh(&first["refreshToken"])).await;
    assert_eq!((status, &problem["error"]), (409, &json!("refresh_raced")));
    let third = answer(refresh(&second["refreshToken"]), 200).await;
    sqlx::query("update refresh_tokens set replaced_at = replaced_at - interval '1 minute'")
        .execute(test.db())
        .await
        .unwrap();
    assert_eq!(refusal(refresh(&first["refreshToken"])).await.0, 401);
    assert_eq!(refusal(refresh(&third["refreshToken"])).await.0, 401);
    answer(test.as_(&web, Method::GET, "/api/auth/me"), 401).await;
    let recorded: i64 = sqlx::query_scalar(
        "select count(*) from audit_entries where action = 'user.refresh_reused' and outcome = 'denied'",
    )
    .fetch_one(test.db())
    .await
    .unwrap();
    assert_eq!(recorded, 1);
    assert_eq!(refusal(refresh(&json!("unknown"))).await.0, 401);
}

#[tokio::test]
async fn one_of_many_concurrent_refreshes_wins() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    let tries = (0..8).map(|_| {
        let request = test.http.post(test.url("/api/auth/refresh"));
        let request = request.json(&json!({"refreshToken": first["refreshToken"]}));
        async { request.send().await.unwrap().status().as_u16() }
    });
    let mut statuses = futures::future::join_all(tries).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn an_expired_refresh_token_is_refused() {
    let test = TestApp::start().await;
    let first = register(&test, "ann").await;
    sqlx::query("update refresh_tokens set expires_at = now()")
        .execute(test.db())
        .await
        .unwrap();
    let request = test.http.post(test.url("/api/auth/refresh"));
    let request = request.json(&json!({"refreshToken": first["refreshToken"]}));
    assert_eq!(refusal(request).await.0, 401);
}

#[tokio::test]
async fn browsers_keep_the_refresh_token_in_a_cookie() {
    let test = TestApp::start().await;
    let mut body = account("ann");
    body["cookie"] = json!(true);
    let request = test
        .http
        .post(test.url("/api/auth/web/register"))
        .json(&body);
    let made = request.send().await.unwrap();
    let cookie = made.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly; SameSite=Strict") && cookie.contains("Path=/api/auth/refresh;")
    );
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["refreshToken"], Value::Null);
    let pair = cookie.split(';').next().unwrap();
    let refresh = test.http.post(test.url("/api/auth/refresh"));
    let refreshed = refresh.header("cookie", pair).send().await.unwrap();
    assert_eq!(refreshed.status(), 200);
    let next = refreshed.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(next.starts_with("clawlink_refresh=") && !next.starts_with(pair));
    let web = refreshed.json::<Value>().await.unwrap();
    assert_eq!(web["refreshToken"], Value::Null);
    let out = test.as_(
        web["token"].as_str().unwrap(),
        Method::POST,
        "/api/auth/logout",
    );
    let out = out.send().await.unwrap();
    assert!(
        out.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
}

#[tokio::test]
async fn the_old_registration_tells_nothing_and_opens_nothing() {
    let test = TestApp::start().await;
    register(&test, "ann").await;
    let owner = test.member("default", MemberRole::Owner).await;
    let post = |token: &str, email: &str| {
        let body = json!({"email": email, "tenantId": owner.workspace});
        test.as_(token, Method::POST, "/api/auth/register")
            .json(&body)
    };
    // Nobody joins a workspace by knowing its number.
    assert_eq!(refusal(post("", "x@example.org")).await.0, 401);
    let developer = test.member("default", MemberRole::Developer).await;
    assert_eq!(
        refusal(post(&developer.token, "x@example.org")).await.0,
        403
    );
    let known = answer(post(&owner.token, "ann@example.org"), 201).await;
    let again = answer(post(&owner.token, "ann@example.org"), 201).await;
    let unknown = answer(post(&owner.token, "nobody@example.org"), 201).await;
    assert_eq!(known["user"]["id"], again["user"]["id"]);
    assert_ne!(known["user"]["id"], unknown["user"]["id"]);
    let key = text(&unknown["apiKey"]);
    answer(test.as_(&key, Method::GET, "/sessions"), 200).await;
    let foreign = test.member("other", MemberRole::Owner).await;
    assert_eq!(refusal(post(&foreign.token, "x@example.org")).await.0, 404);
}

#[tokio::test]
async fn an_old_password_begins_nothing_once_it_was_changed() {
    let test = TestApp::start().await;
    register(&test, "ann").await;
    let mut changing = test.db().begin().await.unwrap();
    sqlx::query("update users set password_hash = 'another', tokens_valid_from = now()")
        .execute(&mut *changing)
        .await
        .unwrap();
    let body = json!({"email": "ann@example.org", "password": "correct horse"});
    let login = test.http.post(test.url("/api/auth/web/login")).json(&body);
    let login = tokio::spawn(login.send());
    // It has compared with what was there before, and waits for the change; or does not.
    eventually("signing in has got as far as it can", async || {
        let waits = is_lock_awaited(test.db()).await;
        (waits || login.is_finished()).then_some(())
    })
    .await;
    changing.commit().await.unwrap();
    assert_eq!(login.await.unwrap().unwrap().status(), 401);
}

#[tokio::test]
async fn a_new_password_ends_reset_tokens() {
    let test = TestApp::start().await;
    let ann = register(&test, "ann").await;
    let mut db = test.db().acquire().await.unwrap();
    let token = auth::reset::issue(&mut db, "ann@example.org")
        .await
        .unwrap();
    drop(db);
    let change = test.as_(&text(&ann["token"]), Method::POST, "/api/auth/password");
    let body = json!({"currentPassword": "correct horse", "newPassword": "battery staple"});
    answer(change.json(&body), 200).await;
    let reset = test.http.post(test.url("/api/auth/reset"));
    let body = json!({"token": token, "password": "another one"});
    assert_eq!(refusal(reset.json(&body)).await.0, 401);
}

#[tokio::test]
async fn who_becomes_a_member_need_not_wait() {
    let test = TestApp::start().await;
    let (workspace, key) = test.key_for("team", auth::principal::KeyRole::Admin).await;
    let ann = test.person("ann@example.org").await;
    let choose = || {
        let request = test.as_(&ann.token, Method::POST, "/api/auth/tenant-token");
        request.json(&json!({"tenantId": workspace}))
    };
    answer(choose(), 401).await;
    let path = format!("/api/tenants/{workspace}/members");
    let invite = test.as_(key.expose(), Method::POST, &path);
    answer(
        invite.json(&json!({"userId": ann.user, "role": "viewer"})),
        200,
    )
    .await;
    answer(choose(), 200).await;
}

/// How long a stream may go on that should end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(40);

#[tokio::test]
async fn streams_end_with_the_right_to_read_them() {
    let test = TestApp::start().await;
    let second = test.second_dispatcher().await;
    let owner = test.member("default", MemberRole::Owner).await;
    let guest = test.member("default", MemberRole::Viewer).await;
    let (workspace, key) = test
        .key_for("default", auth::principal::KeyRole::Readonly)
        .await;
    let open = async |token: &str| {
        let request = test.http.get(format!("{}/api/events", second.url));
        let mut stream = Stream::open(request.bearer_auth(token)).await;
        assert_eq!(stream.next().await.unwrap().kind(), "feed.ready");
        stream
    };
    let mut stays = open(&owner.token).await;
    let ends = [open(&guest.token).await, open(key.expose()).await];
    let id: i64 = sqlx::query_scalar("select max(id) from api_keys")
        .fetch_one(test.db())
        .await
        .unwrap();
    for path in [
        format!("/api/tenants/{workspace}/members/{}", guest.person.user),
        format!("/api/tenants/{workspace}/keys/{id}"),
    ] {
        let remove = test.as_(&owner.token, Method::DELETE, &path).send();
        assert!(remove.await.unwrap().status().is_success(), "{path}");
    }
    for stream in ends {
        let rest = tokio::time::timeout(PATIENCE, stream.rest()).await;
        rest.expect("the stream has ended");
    }
    assert_eq!(stays.next().await.unwrap().kind(), "member.removed");
    let rename = test.as_(
        &owner.token,
        Method::PATCH,
        &format!("/api/tenants/{workspace}"),
    );
    answer(rename.json(&json!({"name": "Ours"})), 200).await;
    assert_eq!(stays.next().await.unwrap().kind(), "workspace.updated");
}
