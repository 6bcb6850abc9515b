//! Passwords: Argon2id, computed off the async threads and few at one time.
//!
//! Hashing is meant to be slow, so a crowd that signs in must not take the processors from
//! everyone else: [`Passwords`] lets a configured number through, the others wait, and beyond
//! [`MAX_WAITING`] they are told to come back. An unknown account costs as much as a wrong
//! password.

use std::sync::Arc;

use anyhow::Context;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use clawlink_shared::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::settings::SignInSettings;
use crate::error::{ApiError, ApiResult};

/// Characters of the shortest password.
pub const MIN_CHARS: usize = 8;
/// Bytes of the longest one.
pub const MAX_BYTES: usize = 1024;
/// Hashes that may wait for their turn.
const MAX_WAITING: usize = 256;
/// Seconds after which those who found the queue full should come back.
const BUSY_SECONDS: u64 = 2;
/// Lanes of one hash; it is computed by one thread.
const LANES: u32 = 1;

/// Name of the algorithm of the earlier portal's hashes.
const PBKDF2: &str = "pbkdf2-sha256";
/// Rounds that such a hash may ask for.
const MAX_ROUNDS: u32 = 1_000_000;

/// Hashes passwords and compares them.
#[derive(Clone)]
pub struct Passwords {
    argon: Argon2<'static>,
    /// A hash of nothing that anybody knows, for accounts that do not exist.
    decoy: Arc<str>,
    waiting: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// How a password compared with a stored hash.
#[derive(Debug)]
pub struct Verdict {
    /// Whether it is the one.
    pub is_right: bool,
    /// A hash with today's parameters, if the stored one has others.
    pub rehashed: Option<String>,
}

impl Passwords {
    /// With these parameters.
    pub fn new(settings: &SignInSettings) -> anyhow::Result<Self> {
        let params = Params::new(
            settings.password_memory_kib,
            settings.password_passes,
            LANES,
            None,
        )
        .ok()
        .context("CLAWLINK_PASSWORD_MEMORY_KIB and CLAWLINK_PASSWORD_PASSES do not go together")?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = hash(&argon, &crate::secrets::random_token())?;
        Ok(Self {
            argon,
            decoy: decoy.into(),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            running: Arc::new(Semaphore::new(settings.password_parallel as usize)),
        })
    }

    /// The hash to store, as a PHC string. 400 unless the password may be used.
    pub async fn hash(&self, password: &Secret) -> ApiResult<String> {
        check(password)?;
        let password = password.clone();
        self.compute(move |argon| hash(argon, password.expose()))
            .await
    }

    /// Compares; `stored` is `None` for an account that does not exist or has no password.
    pub async fn verify(&self, password: &Secret, stored: Option<String>) -> ApiResult<Verdict> {
        let exists = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.to_string());
        let password = password.clone();
        let verdict = self
            .compute(move |argon| verify(argon, password.expose(), &stored))
            .await?;
        Ok(Verdict {
            is_right: verdict.is_right && exists,
            ..verdict
        })
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> anyhow::Result<T> + Send + 'static,
    ) -> ApiResult<T> {
        let full = || ApiError::busy("too many people sign in at this moment", BUSY_SECONDS);
        let place = self.waiting.clone().try_acquire_owned();
        let place = place.map_err(|_| full())?;
        let turn = self.running.clone().acquire_owned().await;
        let turn = turn.context("the semaphore is never closed")?;
        let argon = self.argon.clone();
        let result = tokio::task::spawn_blocking(move || {
            let result = work(&argon);
            // Held until the work has ended, also when nobody waits for it any more.
            drop((turn, place));
            result
        });
        Ok(result.await.context("compute a password's hash")??)
    }
}

/// 400 unless it may be a password.
fn check(password: &Secret) -> ApiResult<()> {
    let text = password.expose();
    if text.chars().count() < MIN_CHARS {
        return Err(ApiError::invalid(format!(
            "password: must have at least {MIN_CHARS} characters"
        )));
    }
    if text.len() > MAX_BYTES {
        return Err(ApiError::invalid(format!(
            "password: must have at most {MAX_BYTES} bytes"
        )));
    }
    Ok(())
}

fn hash(argon: &Argon2<'_>, password: &str) -> anyhow::Result<String> {
    let hash = argon.hash_password(password.as_bytes());
    Ok(hash.ok().context("hash a password")?.to_string())
}

fn verify(argon: &Argon2<'_>, password: &str, stored: &str) -> anyhow::Result<Verdict> {
    if password.len() > MAX_BYTES {
        return Ok(Verdict {
            is_right: false,
            rehashed: None,
        });
    }
    let parsed = PasswordHash::new(stored).ok();
    let parsed = parsed.context("users.password_hash is not a PHC string")?;
    let is_right = match parsed.algorithm.as_str() == PBKDF2 {
        true => is_old_one(password, &parsed),
        false => argon.verify_password(password.as_bytes(), &parsed).is_ok(),
    };
    let is_argon = parsed.algorithm.as_str() == Algorithm::Argon2id.as_str();
    let params = Params::try_from(&parsed).ok().filter(|_| is_argon);
    let is_current = params.is_some_and(|params| {
        let now = argon.params();
        (params.m_cost(), params.t_cost(), params.p_cost())
            == (now.m_cost(), now.t_cost(), now.p_cost())
    });
    let rehashed = match is_right && !is_current {
        true => Some(hash(argon, password)?),
        false => None,
    };
    Ok(Verdict { is_right, rehashed })
}

/// Compares with a hash of the earlier portal: PBKDF2 with HMAC-SHA-256, one block.
fn is_old_one(password: &str, stored: &PasswordHash) -> bool {
    let rounds = stored.params.get_decimal("i");
    let (Some(rounds @ 1..=MAX_ROUNDS), Some(salt), Some(hash)) =
        (rounds, &stored.salt, &stored.hash)
    else {
        return false;
    };
    let key = Hmac::<Sha256>::new_from_slice(password.as_bytes());
    let key = key.expect("HMAC takes keys of any length");
    let mac = |parts: &[&[u8]]| -> [u8; 32] {
        let mut mac = key.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let mut step = mac(&[salt.as_ref(), &1u32.to_be_bytes()]);
    let mut block = step;
    for _ in 1..rounds {
        step = mac(&[&step]);
        block
            .iter_mut()
            .zip(step)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    block.ct_eq(hash.as_bytes()).into()
}
