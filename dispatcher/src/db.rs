//! Connections to Postgres, lent to one caller at a time.
//!
//! The pool behind it asks the server before it lends a connection and again when it gets one
//! back: two round trips around calls that often are one themselves. So a connection that was
//! tested a moment ago is lent again from here. One that is in the middle of something, such as
//! a rollback, must go to the pool, which finishes that at once.

use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use clawlink_shared::secret::Secret;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How plans are made. Compiling one takes longer than any of our statements may. A plan is kept
/// while its connection lives: one made while a table was small would read all of it for as
/// long, where every statement has its index.
///
/// A plan is kept only if it looks no dearer than one for the values at hand. Where it would (a
/// limit, few elements of an array), and planning costs more than it saves, a statement hides
/// the value behind a sub-select: `limit (select $1)`.
const PLANNING: [(&str, &str); 2] = [("jit", "off"), ("enable_seqscan", "off")];
/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);
/// After so long without one a second try begins beside the first: a name that is asked for in a
/// packet that got lost, or a server that went without a word, would else use up the whole wait.
const SECOND_TRY: Duration = Duration::from_secs(1);
/// How long a test of a connection is believed. A server that was away for longer is found out
/// before a statement is sent.
const BELIEVED: Duration = Duration::from_millis(250);

/// Whether an error means that Postgres is away, and says nothing of what was asked of it.
pub fn is_away(error: &anyhow::Error) -> bool {
    let away = |code: &str| {
        ["57P", "08", "53"]
            .iter()
            .any(|class| code.starts_with(class))
    };
    let mut errors = error.chain().filter_map(|link| link.downcast_ref());
    errors.any(|error| match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(inner) => inner.code().is_some_and(|code| away(&code)),
        _ => false,
    })
}

/// The database of an installation; cheap to clone.
#[derive(Clone)]
pub struct Db(Arc<Parts>);

struct Parts {
    pool: PgPool,
    permits: Arc<Semaphore>,
    ready: Mutex<Vec<Tested>>,
    /// Kept ready here; the others stay in the pool, for those who use it directly.
    most_ready: usize,
}

struct Tested {
    connection: PoolConnection<Postgres>,
    at: Instant,
}

/// A transaction on a lent connection; dropped, it is rolled back.
pub struct Open {
    transaction: Transaction<'static, Postgres>,
    // Its connection is in the transaction and goes back to the pool.
    _lent: Lent,
}

/// A lent connection; it comes back when this is dropped.
pub struct Lent {
    // Taken when dropped.
    tested: Option<Tested>,
    from: Arc<Parts>,
    _permit: OwnedSemaphorePermit,
}

impl Db {
    /// Connects; lends at most `connections` at a time.
    pub async fn connect(url: &Secret, connections: u32) -> anyhow::Result<Self> {
        let connections = connections.max(1);
        let options = PgConnectOptions::from_str(url.expose()).ok();
        let options = options.context("DATABASE_URL is not valid")?;
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE)
            .connect_with(options.options(PLANNING))
            .await
            .context("connect to Postgres")?;
        Ok(Self(Arc::new(Parts {
            pool,
            permits: Arc::new(Semaphore::new(connections as usize)),
            ready: Mutex::default(),
            most_ready: connections as usize / 2,
        })))
    }

    /// Lends a connection; waits at most 5 s for its turn, and as long for Postgres.
    pub async fn acquire(&self) -> sqlx::Result<Lent> {
        let permits = self.0.permits.clone();
        let permit = tokio::time::timeout(ACQUIRE, permits.acquire_owned())
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        let tested = match self.0.take_ready() {
            Some(tested) => tested,
            None => {
                let connection = self.0.take().await?;
                let at = Instant::now();
                Tested { connection, at }
            }
        };
        Ok(Lent {
            tested: Some(tested),
            from: self.0.clone(),
            _permit: permit,
        })
    }

    /// Lends a connection with a transaction open on it.
    pub async fn begin(&self) -> sqlx::Result<Open> {
        let mut lent = self.acquire().await?;
        let tested = lent.tested.take().expect("it is there until the drop");
        Ok(Open {
            transaction: Transaction::begin(tested.connection, None).await?,
            _lent: lent,
        })
    }

    /// Opens as many connections as are kept ready, so that a dispatcher that joins others under
    /// load has them before its first request. What fails now is opened when it is needed.
    pub async fn warm(&self) {
        let opening = (0..self.0.most_ready).map(|_| self.0.take());
        for opened in futures::future::join_all(opening).await {
            if let Err(error) = opened {
                tracing::warn!(%error, "a connection to Postgres was not opened ahead");
            }
        }
    }

    /// The pool itself, for what takes nothing else: migrations, tests.
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// Closes all connections; waits for those that are lent.
    pub async fn close(&self) {
        self.0.permits.close();
        self.0.lock_ready().clear();
        self.0.pool.close().await;
    }
}

impl Parts {
    /// A connection of the pool, an open or a new one.
    async fn take(&self) -> sqlx::Result<PoolConnection<Postgres>> {
        let second = async {
            tokio::time::sleep(SECOND_TRY).await;
            self.pool.acquire().await
        };
        tokio::select! {
            taken = self.pool.acquire() => taken,
            taken = second => taken,
        }
    }

    fn take_ready(&self) -> Option<Tested> {
        let mut ready = self.lock_ready();
        // Those that are not believed any more go to the pool.
        ready.retain(|tested| tested.at.elapsed() < BELIEVED);
        ready.pop()
    }

    fn give_back(&self, tested: Tested) {
        let is_clean = !tested.connection.is_in_transaction() && !tested.connection.should_flush();
        let is_believed = tested.at.elapsed() < BELIEVED;
        if !is_clean || !is_believed || self.pool.is_closed() {
            return;
        }
        let mut ready = self.lock_ready();
        if ready.len() < self.most_ready {
            ready.push(tested);
        }
    }

    fn lock_ready(&self) -> std::sync::MutexGuard<'_, Vec<Tested>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Commits.
    pub async fn commit(self) -> sqlx::Result<()> {
        self.transaction.commit().await
    }
}

impl Deref for Open {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self
            .tested
            .as_ref()
            .expect("it is there until the drop")
            .connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self
            .tested
            .as_mut()
            .expect("it is there until the drop")
            .connection
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(tested) = self.tested.take() {
            self.from.give_back(tested);
        }
    }
}
