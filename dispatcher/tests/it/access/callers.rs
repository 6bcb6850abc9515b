//! Who knocks, and with what.

use clawlink::auth::principal::{KeyRole, MemberRole};

use crate::app::{POOL_TOKEN, TestApp};

/// Who knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Nobody,
    WrongKey,
    ExpiredKey,
    RevokedKey,
    ForeignAdmin,
    ForeignOwner,
    Own(KeyRole),
    Member(MemberRole),
    RemovedOwner,
    SignedOut,
    /// Somebody who signed in and chose no workspace.
    Web,
    PlatformAdmin,
    Pool,
}

pub(super) const CALLERS: [Caller; 19] = [
    Caller::Nobody,
    Caller::WrongKey,
    Caller::ExpiredKey,
    Caller::RevokedKey,
    Caller::ForeignAdmin,
    Caller::Own(KeyRole::Admin),
    Caller::Own(KeyRole::Developer),
    Caller::Own(KeyRole::Readonly),
    Caller::Own(KeyRole::Ci),
    Caller::ForeignOwner,
    Caller::Member(MemberRole::Viewer),
    Caller::Member(MemberRole::Developer),
    Caller::Member(MemberRole::Manager),
    Caller::Member(MemberRole::Owner),
    Caller::RemovedOwner,
    Caller::SignedOut,
    Caller::Web,
    Caller::PlatformAdmin,
    Caller::Pool,
];

pub(super) struct Keys(Vec<(Caller, String)>);

impl Keys {
    pub(super) async fn make(test: &TestApp) -> Self {
        let mut keys = vec![
            (Caller::WrongKey, "clawlink_wrong".to_owned()),
            (Caller::Pool, POOL_TOKEN.to_owned()),
        ];
        for (caller, workspace, role) in [
            (Caller::ExpiredKey, "default", KeyRole::Admin),
            (Caller::RevokedKey, "default", KeyRole::Admin),
            (Caller::ForeignAdmin, "other", KeyRole::Admin),
            (Caller::Own(KeyRole::Admin), "default", KeyRole::Admin),
            (
                Caller::Own(KeyRole::Developer),
                "default",
                KeyRole::Developer,
            ),
            (Caller::Own(KeyRole::Readonly), "default", KeyRole::Readonly),
            (Caller::Own(KeyRole::Ci), "default", KeyRole::Ci),
        ] {
            let (_, key) = test.key_for(workspace, role).await;
            keys.push((caller, key.expose().to_owned()));
        }
        for (caller, column) in [
            (Caller::ExpiredKey, "expires_at"),
            (Caller::RevokedKey, "revoked_at"),
        ] {
            let keys = Self(keys.clone());
            let hash = clawlink::secrets::hash_token(keys.of(caller).unwrap());
            let update = format!("update api_keys set {column} = now() where hash = $1");
            sqlx::query(sqlx::AssertSqlSafe(update))
                .bind(&hash[..])
                .execute(test.db())
                .await
                .unwrap();
        }
        for role in MemberRole::ALL {
            let member = test.member("default", role).await;
            keys.push((Caller::Member(role), member.token));
        }
        let foreign = test.member("other", MemberRole::Owner).await;
        keys.push((Caller::ForeignOwner, foreign.token));
        let removed = test.member("default", MemberRole::Owner).await;
        sqlx::query("update members set removed_at = now() where user_id = $1")
            .bind(removed.person.user.0)
            .execute(test.db())
            .await
            .unwrap();
        keys.push((Caller::RemovedOwner, removed.token));
        let out = test.member("default", MemberRole::Owner).await;
        sqlx::query("update sign_ins set revoked_at = now() where user_id = $1")
            .bind(out.person.user.0)
            .execute(test.db())
            .await
            .unwrap();
        keys.push((Caller::SignedOut, out.token));
        let web = test.member("default", MemberRole::Owner).await;
        keys.push((Caller::Web, web.person.token));
        keys.push((Caller::PlatformAdmin, test.platform_admin().await.token));
        Self(keys)
    }

    pub(super) fn of(&self, caller: Caller) -> Option<&str> {
        let found = self.0.iter().find(|(owner, _)| *owner == caller);
        found.map(|(_, key)| key.as_str())
    }
}
