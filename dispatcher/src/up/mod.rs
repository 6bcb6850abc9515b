//! `clawlink up`: the whole system on one machine, and its parts as functions.
//!
//! The parts are the real things (PostgreSQL, Redis, S3 over HTTP, worker processes), private to
//! one data directory, on loopback, with generated passwords. Whoever sets `DATABASE_URL`,
//! `REDIS_URL` or `S3_ENDPOINT` replaces a part; from there on nothing differs, so there are no
//! in-memory twins. No child may outlive us, however we end, and we end nothing that we did not start.

pub mod data_dir;
pub mod identity;
pub mod isolation;
pub mod parts;
pub mod postgres;
pub mod programs;
pub mod redis;
pub mod run;
pub mod s3;
pub mod s3_alone;
pub mod services;
pub mod supervise;
pub mod workers;

mod orphans;
mod s3_list;
mod s3_small;
mod s3_store;
