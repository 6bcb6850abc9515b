//! People who are signed in, for every test that needs one, without forms and passwords:
//!
//! - `test.person("a@x")` makes an account: its id and a *web token*.
//! - `test.member("default", MemberRole::Viewer)` makes an account and a member of that
//!   workspace (made if it is missing): a *workspace token* in `.token`.
//! - `test.joined(&person, "other", MemberRole::Owner)` makes the same person a member of
//!   another workspace too, or changes the role there.
//! - `test.platform_admin()` makes somebody who runs the installation: a web token.
//! - `test.as_(&token, Method::GET, "/path")` is a request with such a token.

use clawlink::auth::principal::MemberRole;
use clawlink::auth::token::{self, TenantId};
use clawlink::auth::{self, person};
use clawlink::bus::RightsOf;
use clawlink::workspaces;
use clawlink_shared::id::{UserId, WorkspaceId};
use reqwest::Method;
use uuid::Uuid;

use super::app::TestApp;

/// Somebody with an account.
#[derive(Debug, Clone)]
pub(crate) struct TestPerson {
    /// Who.
    pub(crate) user: UserId,
    /// The sign-in that the tokens end with.
    pub(crate) sign_in: Uuid,
    /// The web token.
    pub(crate) token: String,
}

/// Somebody in a workspace.
#[derive(Debug, Clone)]
pub(crate) struct TestMember {
    /// Who.
    pub(crate) person: TestPerson,
    /// Where.
    pub(crate) workspace: WorkspaceId,
    /// The workspace token.
    pub(crate) token: String,
}

impl TestApp {
    /// An account with this address, signed in.
    pub(crate) async fn person(&self, email: &str) -> TestPerson {
        let username = format!("u{}", Uuid::new_v4().simple());
        let (sign_in, id) = person::create_signed_in(self.app(), email, &username)
            .await
            .unwrap();
        TestPerson {
            user: sign_in.user(),
            sign_in: id,
            token: sign_in.token().expose().to_owned(),
        }
    }

    /// A new person with this role in the workspace with this slug.
    pub(crate) async fn member(&self, slug: &str, role: MemberRole) -> TestMember {
        let email = format!("{}@example.org", Uuid::new_v4().simple());
        let person = self.person(&email).await;
        self.joined(&person, slug, role).await
    }

    /// The same person with this role in the workspace with this slug.
    pub(crate) async fn joined(
        &self,
        person: &TestPerson,
        slug: &str,
        role: MemberRole,
    ) -> TestMember {
        let mut db = self.db().acquire().await.unwrap();
        let tuning = &self.app().tuning;
        let workspace = workspaces::ensure(&mut db, slug, tuning.running_cap, tuning.pending_cap)
            .await
            .unwrap();
        workspaces::join(&mut db, workspace, person.user, role)
            .await
            .unwrap();
        auth::forget(self.app(), RightsOf::User(person.user));
        let token = token::workspace(
            &self.app().tokens,
            auth::principal::Who::User(person.user),
            Some(person.sign_in),
            TenantId::Number(workspace.0),
            workspaces::role::Role::Member(role),
        );
        TestMember {
            person: person.clone(),
            workspace,
            token: token.expose().to_owned(),
        }
    }

    /// Somebody who runs the installation.
    pub(crate) async fn platform_admin(&self) -> TestPerson {
        let email = format!("{}@example.org", Uuid::new_v4().simple());
        let person = self.person(&email).await;
        sqlx::query("update users set is_platform_admin = true where id = $1")
            .bind(person.user.0)
            .execute(self.db())
            .await
            .unwrap();
        auth::forget(self.app(), RightsOf::User(person.user));
        person
    }

    /// A request with this token.
    pub(crate) fn as_(&self, token: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path)).bearer_auth(token)
    }
}
