//! The ready queue in Redis.
