//! Ctrl-C, counted, for commands that do something better about it than to die.

use std::{
    fmt, io,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};
use parking_lot::Mutex;

/// This press ends the command whatever it waits for: somebody who presses so often means it.
const LAST_PRESS: u32 = 3;
/// The exit code that shells give a program which SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

type Listener = Box<dyn Fn(u32) + Send>;

/// Where Ctrl-C is heard. Nothing is caught before somebody listens, so a command that does not is ended by it as ever.
#[derive(Clone)]
pub struct Interrupts {
    shared: Arc<Shared>,
}

struct Shared {
    /// Signals of this process are waited for; without it only [`Interrupts::press`] is heard.
    real: bool,
    caught: AtomicBool,
    presses: Mutex<(u32, Vec<Listener>)>,
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts").field("real", &self.shared.real).finish_non_exhaustive()
    }
}

impl Interrupts {
    /// SIGINT, SIGTERM and SIGHUP of this process.
    pub fn of_this_process() -> Self {
        Self::new(true)
    }

    /// Those that somebody makes by [`press`](Self::press).
    pub fn by_hand() -> Self {
        Self::new(false)
    }

    /// From now on this process ends, and well, as soon as nobody reads its standard output any more: a command that follows something quiet
    /// would learn of it only when it has the next line to write.
    pub(super) fn end_with_reader(&self) {
        if !self.shared.real {
            return;
        }
        thread::spawn(|| {
            let out = io::stdout();
            // What is asked for is nothing; that the other end has gone is told all the same.
            let mut gone = [PollFd::new(out.as_fd(), PollFlags::empty())];
            loop {
                match poll(&mut gone, PollTimeout::NONE) {
                    Ok(_) => std::process::exit(0),
                    Err(Errno::EINTR) => {}
                    Err(_) => return,
                }
            }
        });
    }

    fn new(real: bool) -> Self {
        let presses = Mutex::new((0, Vec::new()));
        Self { shared: Arc::new(Shared { real, caught: AtomicBool::new(false), presses }) }
    }

    /// One more.
    pub fn press(&self) {
        let mut presses = self.shared.presses.lock();
        presses.0 += 1;
        for listener in &presses.1 {
            (listener)(presses.0);
        }
    }

    /// Calls `each` with the number of every press from now on. It must not wait.
    pub(super) fn listen(&self, each: impl Fn(u32) + Send + 'static) {
        self.shared.presses.lock().1.push(Box::new(each));
        if !self.shared.real || self.shared.caught.swap(true, Ordering::SeqCst) {
            return;
        }
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        // Threads that are made from here on inherit the mask, so that only the one below is woken.
        if signals.thread_block().is_err() {
            return;
        }
        let interrupts = self.clone();
        thread::spawn(move || {
            while signals.wait().is_ok() {
                interrupts.press();
                if interrupts.shared.presses.lock().0 >= LAST_PRESS {
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        });
    }
}
