//! Who made an API key: shown with it, and what of theirs ends when they turn out to be
//! somebody else, or are removed.

use clawlink::auth;
use clawlink::auth::principal::{KeyRole, MemberRole};
use clawlink_shared::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use super::{answer, ends, text};
use crate::app::TestApp;
use crate::client::{Stream, refusal};
use crate::members::audited;
use crate::person::TestMember;

/// Makes a key in the workspace, as somebody who may: its number and the key.
async fn make_key(test: &TestApp, token: &str, workspace: i64, role: &str) -> (i64, String) {
    let path = format!("/api/tenants/{workspace}/keys");
    let body = json!({"name": "made", "role": role});
    let made = answer(test.as_(token, Method::POST, &path).json(&body), 201).await;
    (made["id"].as_i64().unwrap(), text(&made["apiKey"]))
}

/// The keys of the workspace, as somebody sees them who may.
async fn keys(test: &TestApp, token: &str, workspace: i64) -> Vec<Value> {
    let path = format!("/api/tenants/{workspace}/keys");
    let listed = answer(test.as_(token, Method::GET, &path), 200).await;
    listed["keys"].as_array().unwrap().clone()
}

/// Somebody with an account under an address that is another's, who has provided for the day on
/// which that one comes.
pub(crate) struct Squatter {
    of: TestMember,
    /// All that lets in: keys and tokens.
    credentials: Vec<String>,
    invitations: Vec<String>,
    stream: Stream,
    /// The operator's key for the same workspace.
    stays: Secret,
}

impl Squatter {
    pub(crate) async fn settle(test: &TestApp, email: &str) -> Self {
        let person = test.person(email).await;
        let of = test.joined(&person, "trap", MemberRole::Owner).await;
        let workspace = of.workspace.0;
        let (_, first) = make_key(test, &of.token, workspace, "admin").await;
        let (_, second) = make_key(test, &first, workspace, "developer").await;
        let exchange = test.http.post(test.url("/api/auth/token"));
        let token = answer(exchange.json(&json!({"apiKey": first})), 200).await;
        // A key that is gone may have left something behind.
        let (id, gone) = make_key(test, &first, workspace, "admin").await;
        let members = format!("/api/tenants/{workspace}/members");
        let mut invitations = Vec::new();
        for (inviter, email) in [
            (&of.token, "one@example.org"),
            (&first, "two@example.org"),
            (&gone, "three@example.org"),
        ] {
            let body = json!({"email": email, "role": "developer"});
            let left = answer(test.as_(inviter, Method::POST, &members).json(&body), 200).await;
            invitations.push(text(&left["invitation"]["token"]));
        }
        let path = format!("/api/tenants/{workspace}/keys/{id}");
        answer(test.as_(&first, Method::DELETE, &path), 204).await;
        let mut stream = Stream::open(test.as_(&second, Method::GET, "/api/events")).await;
        assert_eq!(stream.next().await.unwrap().kind(), "feed.ready");
        let (_, stays) = test.key_for("trap", KeyRole::Admin).await;
        let token = text(&token["token"]);
        Self {
            credentials: vec![first, second, token, of.token.clone()],
            of,
            invitations,
            stream,
            stays,
        }
    }

    /// Nothing of it leads to the workspace any more; `owner` is the web token of whose the
    /// address is.
    pub(crate) async fn must_be_out(self, test: &TestApp, owner: &str) {
        let workspace = self.of.workspace.0;
        let path = format!("/api/tenants/{workspace}");
        for token in &self.credentials {
            answer(test.as_(token, Method::GET, &path), 401).await;
        }
        let me = test.as_(&self.of.person.token, Method::GET, "/api/auth/me");
        assert_eq!(refusal(me).await.0, 401);
        let friend = test.person("friend@example.org").await;
        for token in &self.invitations {
            let accept = test.as_(&friend.token, Method::POST, "/api/invitations/accept");
            let (status, problem) = refusal(accept.json(&json!({"token": token}))).await;
            let expected = json!("invitation_not_found");
            assert_eq!((status, &problem["error"]), (404, &expected));
        }
        ends(self.stream).await;
        // What others made there is not the squatter's.
        answer(test.as_(self.stays.expose(), Method::GET, &path), 200).await;
        let switch = test.as_(owner, Method::POST, &format!("{path}/switch"));
        let token = text(&answer(switch, 200).await["token"]);
        let left = keys(test, &token, workspace).await;
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0]["createdBy"], Value::Null);
        let audited = audited(test, self.of.workspace).await;
        let told = |action: &str| audited.iter().filter(|told| *told == action).count();
        assert_eq!((told("key.revoked"), told("invitation.revoked")), (3, 3));
        let details: Value = sqlx::query_scalar(
            "select details from audit_entries where action = 'user.email_verified'",
        )
        .fetch_one(test.db())
        .await
        .unwrap();
        assert_eq!(details, json!({"revokedKeys": 2, "revokedInvitations": 3}));
    }
}

/// Sets a password by the operator's token and signs in: the web token.
async fn reset(test: &TestApp, email: &str) -> String {
    let mut db = test.db().acquire().await.unwrap();
    let token = auth::reset::issue(&mut db, email).await.unwrap();
    drop(db);
    let reset = test.http.post(test.url("/api/auth/reset"));
    let body = json!({"token": token, "password": "correct horse"});
    answer(reset.json(&body), 204).await;
    let login = test.http.post(test.url("/api/auth/web/login"));
    let body = json!({"email": email, "password": "correct horse"});
    text(&answer(login.json(&body), 200).await["token"])
}

#[tokio::test]
async fn who_comes_with_the_operators_token_is_alone_in_the_account() {
    let test = TestApp::start().await;
    let squatter = Squatter::settle(&test, "ann@example.org").await;
    let workspace = squatter.of.workspace.0;
    let web = reset(&test, "ann@example.org").await;
    squatter.must_be_out(&test, &web).await;
    // Once it is proved whose the address is, a new password ends no keys.
    let path = format!("/api/tenants/{workspace}");
    let switch = test.as_(&web, Method::POST, &format!("{path}/switch"));
    let token = text(&answer(switch, 200).await["token"]);
    let (_, key) = make_key(&test, &token, workspace, "admin").await;
    reset(&test, "ann@example.org").await;
    answer(test.as_(&token, Method::GET, &path), 401).await;
    answer(test.as_(&key, Method::GET, &path), 200).await;
}

#[tokio::test]
async fn keys_outlive_their_maker_unless_told_otherwise() {
    let test = TestApp::start().await;
    let (workspace, admin) = test.key_for("team", KeyRole::Admin).await;
    let workspace = workspace.0;
    let path = format!("/api/tenants/{workspace}");
    for (query, status) in [("", 200), ("?revokeKeys=true", 401)] {
        let guest = test.member("team", MemberRole::Manager).await;
        let (_, elsewhere) = {
            let other = test.joined(&guest.person, "other", MemberRole::Owner).await;
            make_key(&test, &other.token, other.workspace.0, "ci").await
        };
        let (id, key) = make_key(&test, &guest.token, workspace, "admin").await;
        let (second, made_with_it) = make_key(&test, &key, workspace, "ci").await;
        let maker = json!(format!("user:{}", guest.person.user));
        let mine = async || -> Vec<(i64, bool)> {
            let listed = keys(&test, admin.expose(), workspace).await;
            let mine = listed.iter().filter(|key| key["createdBy"] == maker);
            mine.map(|key| {
                let is_active = key["isCreatorActive"].as_bool().unwrap();
                (key["id"].as_i64().unwrap(), is_active)
            })
            .collect()
        };
        assert_eq!(mine().await, [(second, true), (id, true)]);
        let member = format!("{path}/members/{}{query}", guest.person.user);
        answer(test.as_(admin.expose(), Method::DELETE, &member), 200).await;
        for key in [&key, &made_with_it] {
            answer(test.as_(key, Method::GET, &path), status).await;
        }
        let kept: &[(i64, bool)] = match status {
            200 => &[(second, false), (id, false)],
            _ => &[],
        };
        assert_eq!(mine().await, kept);
        // Of another workspace nobody here may take anything away.
        answer(test.as_(&elsewhere, Method::GET, "/sessions"), 200).await;
    }
    // Whoever made none is nobody's.
    let listed = keys(&test, admin.expose(), workspace).await;
    let operators = listed.iter().find(|key| key["createdBy"].is_null());
    assert_eq!(operators.unwrap()["isCreatorActive"], Value::Null);
}
