//! The `clawlink-worker` program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clawlink_worker::agents::sandbox::{self, SandboxArgs};

#[derive(Parser)]
#[command(name = "clawlink-worker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command that may only touch one directory
    Sandbox(SandboxArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Sandbox(args) => sandbox::enter(args),
    }
}
