//! How many requests a caller may make: a token bucket per caller, shared by all replicas.
//!
//! The bucket is in Redis. A replica takes a few tokens at a time and hands them out itself, so
//! that most requests cost no round trip; what it took and did not use lapses, so the limit is
//! never exceeded. Without Redis each replica counts by itself until it is back.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use redis::{RedisResult, Script};
use tokio::time::Instant;

use crate::bus::Bus;
use crate::error::{ApiError, ApiResult};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("limit.lua")));

/// The time in which an empty bucket fills.
const WINDOW: Duration = Duration::from_secs(60);
/// The share of a bucket that a replica takes at one time.
const SHARE: u32 = 50;
/// Tokens that were taken and not used lapse after this.
const LAPSE: Duration = Duration::from_secs(1);
/// Callers that a replica keeps tokens for; the others ask Redis each time.
const MAX_CALLERS: usize = 10_000;

/// The limit of every caller; 0 requests a minute means none.
#[derive(Debug)]
pub struct Limiter {
    per_minute: u32,
    callers: Mutex<HashMap<String, Taken>>,
}

/// What this replica has taken for one caller.
#[derive(Debug, Clone, Copy)]
struct Taken {
    tokens: u32,
    /// Left in the shared bucket when they were taken.
    left: u32,
    until: Instant,
    /// There is no shared bucket: these are all until then.
    is_alone: bool,
}

/// What a caller is told about its limit.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    limit: u32,
    remaining: u32,
}

impl Limiter {
    /// With so many requests a minute.
    pub fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            callers: Mutex::default(),
        }
    }

    /// Counts a request of this caller; 429 if it made too many. `None` without a limit.
    pub async fn admit(&self, bus: &Bus, caller: &str) -> ApiResult<Option<Standing>> {
        if self.per_minute == 0 {
            return Ok(None);
        }
        if let Some(standing) = self.use_taken(caller)? {
            return Ok(Some(standing));
        }
        let want = (self.per_minute / SHARE).max(1);
        let rate = f64::from(self.per_minute) / WINDOW.as_secs_f64() / 1000.0;
        let mut call = SCRIPT.key(bus.key(&format!("rate:{caller}")));
        call.arg(self.per_minute).arg(rate).arg(want);
        let asked: RedisResult<(u32, u32, u64)> = call.invoke_async(&mut bus.redis()).await;
        let (granted, left, wait, is_alone) = match asked {
            Ok((granted, left, wait)) => (granted, left, wait, false),
            Err(error) => {
                tracing::debug!(%error, "no shared rate limits; this replica counts alone");
                (self.per_minute, 0, 0, true)
            }
        };
        let Some(tokens) = granted.checked_sub(1) else {
            return Err(self.refuse(Duration::from_millis(wait)));
        };
        let lapse = if is_alone { WINDOW } else { LAPSE };
        let taken = Taken {
            tokens,
            left,
            until: Instant::now() + lapse,
            is_alone,
        };
        self.keep(caller, taken);
        Ok(Some(self.standing(taken)))
    }

    /// Uses a token that this replica has, if it may decide alone.
    fn use_taken(&self, caller: &str) -> ApiResult<Option<Standing>> {
        let mut callers = self.lock();
        let now = Instant::now();
        let Some(taken) = callers.get_mut(caller).filter(|taken| taken.until > now) else {
            return Ok(None);
        };
        match taken.tokens.checked_sub(1) {
            Some(tokens) => {
                taken.tokens = tokens;
                Ok(Some(self.standing(*taken)))
            }
            None if taken.is_alone => Err(self.refuse(taken.until - now)),
            None => Ok(None),
        }
    }

    fn keep(&self, caller: &str, taken: Taken) {
        let mut callers = self.lock();
        if callers.len() >= MAX_CALLERS {
            let now = Instant::now();
            callers.retain(|_, taken| taken.until > now);
        }
        if callers.len() < MAX_CALLERS {
            callers.insert(caller.to_owned(), taken);
        }
    }

    fn refuse(&self, wait: Duration) -> ApiError {
        metrics::counter!("clawlink_rate_limited_total").increment(1);
        let seconds = wait.as_secs_f64().ceil() as u64;
        ApiError::rate_limited(self.per_minute, seconds.max(1))
    }

    fn standing(&self, taken: Taken) -> Standing {
        Standing {
            limit: self.per_minute,
            remaining: taken.left.saturating_add(taken.tokens),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Taken>> {
        self.callers
            .lock()
            .expect("nothing panics while it is held")
    }
}

impl Standing {
    /// Adds the `RateLimit-*` headers.
    pub fn tell(self, headers: &mut HeaderMap) {
        let missing = u64::from(self.limit.saturating_sub(self.remaining));
        let reset = (missing * WINDOW.as_secs()).div_ceil(u64::from(self.limit));
        for (name, value) in [
            ("ratelimit-limit", u64::from(self.limit)),
            ("ratelimit-remaining", u64::from(self.remaining)),
            ("ratelimit-reset", reset),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
}
