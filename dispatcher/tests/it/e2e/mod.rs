//! The main job on real parts: the worker binary, git over smart HTTP, the real `claude` CLI.

mod cancel;
mod crash;
mod main_job;
mod outage;
mod parts;
mod resume;
mod shaky;
mod wire;
mod world;
mod zombie;
