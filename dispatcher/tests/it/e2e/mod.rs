//! The main job on real parts: the worker binary, git over smart HTTP, the real `claude`
//! and `codex` CLIs.

mod acp;
mod approvals;
mod budget;
mod cancel;
mod codex;
mod codex_limits;
mod codex_people;
mod crash;
mod defined;
mod history;
mod hostile;
mod main_job;
mod outage;
mod parts;
mod pull_request;
mod resume;
mod search;
mod secrets;
mod shaky;
mod skills;
mod stored_secrets;
mod takeover;
mod traces;
mod under_up;
mod wire;
pub(crate) mod world;
mod zombie;
