//! The `clawlink-worker` program.

use std::process::ExitCode;

use clawlink_shared::telemetry::{self, LogArgs};
use clawlink_worker::agents::{self, sandbox};
use clawlink_worker::config::{self, Sub, WorkArgs};
use clawlink_worker::exit::Exit;
use clawlink_worker::{report, work};

fn main() -> ExitCode {
    let cli = match config::parse() {
        Ok(cli) => cli,
        Err(error) => {
            eprintln!("clawlink-worker: {error:#}");
            return Exit::Broken.into();
        }
    };
    match (cli.command, cli.work) {
        (Some(Sub::Sandbox(args)), _) => sandbox::enter(args),
        (Some(Sub::Health(args)), _) => {
            let spool = args.spool_dir.unwrap_or_else(config::default_spool_dir);
            ExitCode::from(u8::from(!report::is_worker_alive(spool)))
        }
        (None, Some(settings)) => start(settings, &cli.log).into(),
        (None, None) => Exit::Broken.into(),
    }
}

fn start(settings: WorkArgs, log: &LogArgs) -> Exit {
    // One thread waits, sends and receives; what computes or blocks has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ready = agents::harden().and_then(|()| Ok(runtime?));
    match ready {
        Ok(runtime) => {
            let exit = runtime.block_on(async {
                let traces = telemetry::init(log, "clawlink-worker");
                let exit = work::work(settings).await;
                traces.finish().await;
                exit
            });
            // A blocking thread that does not end must not keep the process.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            // How to log is not set up yet.
            eprintln!("clawlink-worker: {error:#}");
            Exit::Broken
        }
    }
}
