//! The main job on real parts: the worker binary, git over smart HTTP, the real `claude` CLI.

mod main_job;
mod resume;
mod world;
