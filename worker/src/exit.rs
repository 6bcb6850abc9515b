//! How the process ends, as its supervisor sees it.

use std::process::ExitCode;

/// Why the worker exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// An execution reached a recorded end, whatever that end is; or there was none to run.
    Done,
    /// A defect, or a machine that does not let us work; the log says what.
    Broken,
    /// No dispatcher serves this version of the worker.
    WrongProtocol,
    /// No dispatcher answered within the outage grace; the report, if any, is on the disk.
    Unreachable,
    /// Whoever started the worker is gone.
    LifelineCut,
}

impl Exit {
    /// The number. 2 is left to clap: misuse of the command line.
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Broken => 1,
            Self::WrongProtocol => 3,
            Self::Unreachable => 4,
            Self::LifelineCut => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.number().into()
    }
}
