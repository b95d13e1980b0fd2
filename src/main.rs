//! The `latchkey` program: the command line of the library, and its exit codes.

use std::process::ExitCode;

use latchkey::cli::{self, Exit};

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            failure.report();
            failure.exit.into()
        }
    }
}
