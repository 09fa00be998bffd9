//! Ends this process when another one is gone while GPUs wait for it.
//!
//! A GPU that waits for a rank that was killed waits for ever, and so does whoever waits for that GPU; only the connections
//! between the processes tell. Where this process finds out by itself, and ends with the error, the watch has no part in it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::error::GroupError;
use super::star::Star;

/// Between two looks at whether the watch is still wanted, in milliseconds.
const PAUSE: i32 = 200;
/// How long this process has to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// A thread that watches connections; dropping this ends it.
#[derive(Debug)]
pub(super) struct Watch {
    is_over: Arc<AtomicBool>,
}

impl Watch {
    /// Watches the connections of `star`.
    pub(super) fn start(star: &Star) -> Result<Self, GroupError> {
        let mut lines = Vec::new();
        for peer in star.peers() {
            let lost = |source| GroupError::Lost {
                rank: peer.rank,
                source,
            };
            lines.push((peer.rank, peer.descriptor().map_err(lost)?));
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let started = thread::Builder::new()
            .name("group-watch".to_owned())
            .spawn(move || watch(&lines, &told));
        started.map_err(|error| GroupError::Nccl {
            action: "watch the other ranks",
            problem: error.to_string(),
        })?;
        Ok(Self { is_over })
    }

    /// From now on a connection may be closed.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

fn watch(lines: &[(usize, OwnedFd)], is_over: &AtomicBool) {
    let gone = loop {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        match first_closed(lines) {
            Ok(None) => {}
            Ok(Some(rank)) => break rank,
            // Nothing to watch with: the timeouts of messages are left.
            Err(_) => return,
        }
    };
    thread::sleep(GRACE);
    if !is_over.load(Ordering::Relaxed) {
        eprintln!(
            "error: rank {gone} is gone, and a GPU of this process waits for it\n\
             hint: the first error is in the output of that rank"
        );
        std::process::exit(1);
    }
}

/// The rank of a connection whose other side has been closed; `None` after a pause without one.
fn first_closed(lines: &[(usize, OwnedFd)]) -> io::Result<Option<usize>> {
    let mut polled: Vec<libc::pollfd> = lines
        .iter()
        .map(|(_, line)| libc::pollfd {
            fd: line.as_raw_fd(),
            events: libc::POLLRDHUP,
            revents: 0,
        })
        .collect();
    // SAFETY: the pointer and the count are those of the vector, whose descriptors are open as long as `lines` lives.
    let found = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, PAUSE) };
    if found < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    }
    let closed = polled.iter().position(|line| line.revents != 0);
    Ok(closed.map(|place| lines[place].0))
}
