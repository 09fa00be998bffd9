//! Ctrl-C as a request: the step in hand is finished first. So are the signals of schedulers.

use std::io::{self, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The shell's convention for a program that SIGINT ended: 128 + 2.
pub const EXIT_STATUS: i32 = 130;

const HEARD: &str =
    "finishing the step in hand, then writing a checkpoint; Ctrl-C again stops at once";

/// Whether the user, or the system, has asked the run to stop. Clones share one answer.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens to Ctrl-C, SIGTERM and SIGHUP for the rest of the process. The first one is a request; the second ends
    /// the process at once with [`EXIT_STATUS`]. SIGUSR1, which Slurm sends as a warning before time is up
    /// (`--signal=USR1@120`), is a request, however often it comes.
    ///
    /// # Errors
    /// When the process has such a handler already.
    pub fn listen() -> Result<Self, ctrlc::Error> {
        Self::listen_and_say(HEARD)
    }

    /// The same with another answer on stderr to the first one.
    ///
    /// # Errors
    /// Those of [`Interrupt::listen`].
    pub fn listen_and_say(heard_text: &'static str) -> Result<Self, ctrlc::Error> {
        let interrupt = Self::default();
        let heard = interrupt.clone();
        ctrlc::set_handler(move || {
            if heard.request() {
                process::exit(EXIT_STATUS);
            }
            // Not a log line: whoever pressed the keys must see that they have been heard.
            let _ = writeln!(io::stderr(), "\n{heard_text}");
        })?;
        warning::listen();
        Ok(interrupt)
    }

    /// Asks for a stop. Returns whether somebody had asked before.
    pub fn request(&self) -> bool {
        self.requested.swap(true, Ordering::Relaxed)
    }

    /// Whether to stop after the step in hand.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed) || warning::has_come()
    }
}

/// SIGUSR1, which the crate for the other signals does not listen to.
#[cfg(unix)]
mod warning {
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A signal's handler has no other place to write to.
    static HAS_COME: AtomicBool = AtomicBool::new(false);

    extern "C" fn note(_signal: libc::c_int) {
        HAS_COME.store(true, Ordering::Relaxed);
    }

    /// Without a handler the signal would end the process, so that one that cannot be set up changes nothing.
    pub(super) fn listen() {
        let handler = note as extern "C" fn(libc::c_int);
        // SAFETY: a zeroed sigaction is a valid one with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        // Reading and writing go on after it.
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the action lives through the call, and its handler does nothing but store to an atomic.
        unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    }

    pub(super) fn has_come() -> bool {
        HAS_COME.load(Ordering::Relaxed)
    }
}

#[cfg(not(unix))]
mod warning {
    pub(super) fn listen() {}

    pub(super) fn has_come() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_noted_and_the_second_is_told_apart() {
        let interrupt = Interrupt::default();
        let elsewhere = interrupt.clone();
        assert!(!elsewhere.is_requested());
        assert!(!interrupt.request());
        assert!(elsewhere.is_requested());
        assert!(interrupt.request());
    }
}
