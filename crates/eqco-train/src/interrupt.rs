//! Ctrl-C as a request: the step in hand is finished first.

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
    /// the process at once with [`EXIT_STATUS`].
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
        Ok(interrupt)
    }

    /// Asks for a stop. Returns whether somebody had asked before.
    pub fn request(&self) -> bool {
        self.requested.swap(true, Ordering::Relaxed)
    }

    /// Whether to stop after the step in hand.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
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
