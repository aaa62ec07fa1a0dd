//! The `hivekeeper` executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "agent") {
        // Before anything else: a launcher has one thread, no runtime and little memory.
        return hivekeeper::launcher::main(arguments);
    }
    hivekeeper::cli::run(std::env::args_os(), hivekeeper::app::serve)
}
