//! One binary for all tests of the worker.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod acp_command;
mod acp_gemini;
mod acp_parse;
mod acp_real;
mod acp_requests;
mod acp_run;
mod agent_job;
mod agents;
mod archive;
mod claude_credentials;
mod claude_fake;
mod claude_parse;
mod claude_run;
mod client;
mod codex_fake;
mod codex_parse;
mod codex_run;
mod dispatcher;
mod events;
mod git;
mod http_agent;
mod proxy;
mod redact;
mod run;
mod run_git;
mod run_partners;
mod sandbox;
mod story;
mod wait;
mod worker_process;
