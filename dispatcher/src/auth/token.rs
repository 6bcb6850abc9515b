//! Tokens of people who signed in: signed, short-lived, each kind for its own routes.
//!
//! A *web token* says who somebody is, a *workspace token* also where. What a token says about
//! roles is for clients to show: rights are read from the database at every request
//! ([`super::rights`]). A token of one kind is never taken for the other.

use clawlink_shared::id::{UserId, WorkspaceId};
use clawlink_shared::secret::Secret;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, get_current_timestamp,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::principal::Who;
use crate::secrets::Keys;
use crate::workspaces::role::Role;

/// How long a web token is valid, in seconds.
pub const WEB_SECONDS: u64 = 86_400;
/// How long a workspace token is valid, in seconds.
pub const WORKSPACE_SECONDS: u64 = 3_600;
/// How far the clocks of two replicas may be apart, in seconds.
const LEEWAY: u64 = 5;
/// Who issues and takes them.
const ISSUER: &str = "clawlink";

/// The keys that sign tokens; clones are cheap.
#[derive(Clone)]
pub struct TokenKeys {
    signer: EncodingKey,
    /// The current key's, then the old one's while keys are being replaced.
    verifiers: Vec<DecodingKey>,
}

impl TokenKeys {
    /// Of this installation.
    pub fn of(keys: &Keys) -> Self {
        let keys = keys.of_purpose("token");
        Self {
            signer: EncodingKey::from_secret(&keys[0]),
            verifiers: keys
                .iter()
                .map(|key| DecodingKey::from_secret(key))
                .collect(),
        }
    }
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Says who.
    Web,
    /// Says who, and where.
    Workspace,
}

impl Kind {
    /// Whom it is meant for.
    fn audience(self) -> &'static str {
        match self {
            Self::Web => "clawlink:web",
            Self::Workspace => "clawlink:workspace",
        }
    }
}

/// A workspace's id as the client spelled it: old ones send a string and expect it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum TenantId {
    /// `7`
    Number(i64),
    /// `"7"`
    Text(String),
}

impl TenantId {
    /// The workspace that is meant, if it can be one.
    pub fn workspace(&self) -> Option<WorkspaceId> {
        match self {
            Self::Number(id) => Some(WorkspaceId(*id)),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    kind: Kind,
    iss: String,
    aud: String,
    exp: u64,
    iat: u64,
    jti: Uuid,
    /// A user's id, or `key:7`.
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tid: Option<TenantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
}

/// What a valid token proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Who: a person or a key.
    pub who: Who,
    /// The sign-in that it ends with, for a person.
    pub sign_in: Option<Uuid>,
    /// Where, if it is a workspace token.
    pub workspace: Option<WorkspaceId>,
}

/// A web token, valid for [`WEB_SECONDS`].
pub fn web(keys: &TokenKeys, user: UserId, sign_in: Uuid, email: &str, username: &str) -> Secret {
    let mut claims = claims(Kind::Web, user.to_string(), WEB_SECONDS);
    claims.sid = Some(sign_in);
    claims.email = Some(email.to_owned());
    claims.username = Some(username.to_owned());
    sign(keys, &claims)
}

/// A workspace token, valid for [`WORKSPACE_SECONDS`].
pub fn workspace(
    keys: &TokenKeys,
    who: Who,
    sign_in: Option<Uuid>,
    tenant: TenantId,
    role: Role,
) -> Secret {
    let subject = match who {
        Who::User(user) => user.to_string(),
        Who::Key(_) | Who::Client(_) => who.name(),
    };
    let mut claims = claims(Kind::Workspace, subject, WORKSPACE_SECONDS);
    claims.sid = sign_in;
    claims.tid = Some(tenant);
    claims.role = Some(role.as_str().to_owned());
    sign(keys, &claims)
}

/// Whether this looks like one of these tokens; API keys do not.
pub fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// What the token proves; `None` if it is forged, expired or of another installation.
pub fn verify(keys: &TokenKeys, token: &str) -> Option<Proof> {
    let claims = keys.verifiers.iter().find_map(|key| {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[Kind::Web.audience(), Kind::Workspace.audience()]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Some(decode::<Claims>(token, key, &validation).ok()?.claims)
    })?;
    let workspace = claims.tid.as_ref().and_then(TenantId::workspace);
    let is_of_its_kind = match claims.kind {
        Kind::Web => workspace.is_none(),
        Kind::Workspace => workspace.is_some(),
    };
    if claims.aud != claims.kind.audience() || !is_of_its_kind {
        return None;
    }
    let who = match claims.sub.strip_prefix("key:") {
        Some(id) => Who::Key(id.parse().ok()?),
        None => Who::User(claims.sub.parse().ok()?),
    };
    let is_complete = match who {
        Who::User(_) => claims.sid.is_some(),
        Who::Key(_) | Who::Client(_) => workspace.is_some(),
    };
    is_complete.then_some(Proof {
        who,
        sign_in: claims.sid,
        workspace,
    })
}

fn claims(kind: Kind, sub: String, seconds: u64) -> Claims {
    let iat = get_current_timestamp();
    Claims {
        kind,
        iss: ISSUER.to_owned(),
        aud: kind.audience().to_owned(),
        exp: iat + seconds,
        iat,
        jti: Uuid::now_v7(),
        sub,
        sid: None,
        tid: None,
        role: None,
        email: None,
        username: None,
    }
}

fn sign(keys: &TokenKeys, claims: &Claims) -> Secret {
    let token = encode(&Header::new(Algorithm::HS256), claims, &keys.signer);
    Secret::new(token.expect("these claims serialize, and the key fits the algorithm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OLD: &str = "HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn keys(key: &str, old: Option<&str>) -> TokenKeys {
        let old = old.map(Secret::new);
        TokenKeys::of(&Keys::derive(&Secret::new(key), old.as_ref()).expect("a valid key"))
    }

    #[test]
    fn tokens_of_the_old_key_are_taken_and_new_ones_signed_with_the_new() {
        let user = UserId(Uuid::new_v4());
        let sign_in = Uuid::new_v4();
        let before = web(&keys(OLD, None), user, sign_in, "a@x", "a");
        let both = keys(NEW, Some(OLD));
        let proof = verify(&both, before.expose()).expect("still valid");
        assert_eq!((proof.who, proof.workspace), (Who::User(user), None));
        let after = web(&both, user, sign_in, "a@x", "a");
        assert!(verify(&keys(NEW, None), after.expose()).is_some());
        assert!(verify(&keys(NEW, None), before.expose()).is_none());
        assert!(verify(&keys(OLD, None), after.expose()).is_none());
    }

    #[test]
    fn what_contradicts_itself_or_is_over_is_refused() {
        let keys = keys(NEW, None);
        let good = || {
            let mut claims = claims(Kind::Web, Uuid::new_v4().to_string(), WEB_SECONDS);
            claims.sid = Some(Uuid::new_v4());
            claims
        };
        let refused = |change: fn(&mut Claims)| {
            let mut claims = good();
            change(&mut claims);
            verify(&keys, sign(&keys, &claims).expose()).is_none()
        };
        assert!(verify(&keys, sign(&keys, &good()).expose()).is_some());
        assert!(refused(|claims| claims.exp = claims.iat - LEEWAY - 1));
        assert!(refused(|claims| claims.tid = Some(TenantId::Number(1))));
        assert!(refused(|claims| claims.kind = Kind::Workspace));
        assert!(refused(|claims| claims.aud = "clawlink:workspace".into()));
        assert!(refused(|claims| claims.iss = "somebody else".into()));
        assert!(refused(|claims| claims.sid = None));
        assert!(refused(|claims| claims.sub = "key:1".into()));
    }

    #[test]
    fn a_token_without_a_signature_is_refused() {
        let keys = keys(NEW, None);
        let token = web(&keys, UserId(Uuid::new_v4()), Uuid::new_v4(), "a@x", "a");
        let (rest, _) = token.expose().rsplit_once('.').expect("three parts");
        assert!(verify(&keys, &format!("{rest}.")).is_none());
        // {"alg":"none"}
        let claims = rest.split('.').nth(1).expect("claims");
        assert!(verify(&keys, &format!("eyJhbGciOiJub25lIn0.{claims}.")).is_none());
    }
}
