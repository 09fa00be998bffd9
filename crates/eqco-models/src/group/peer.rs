//! A connection to another process: messages with a kind and a length.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::error::GroupError;

/// The most bytes of last words that are read.
const LONGEST_REASON: usize = 4096;
/// Kind and length of a message, little endian.
const HEADER: usize = 4 + 8;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To one that has introduced itself, when all have: the group is complete.
    Welcome = 1,
    /// Values that are summed.
    Sum = 2,
    /// Rows that are put one after the other.
    Rows = 3,
    /// Figures of each rank.
    Numbers = 4,
    /// The name under which NCCL's processes find each other.
    NcclId = 5,
    /// Last words.
    Leave = 6,
}

impl Kind {
    fn named(code: u32) -> Option<Self> {
        use Kind::*;
        [Welcome, Sum, Rows, Numbers, NcclId, Leave]
            .into_iter()
            .find(|kind| *kind as u32 == code)
    }
}

/// Another process.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) rank: usize,
    stream: TcpStream,
    /// How long it may be silent.
    patience: Duration,
}

impl Peer {
    /// Takes over a connection.
    pub(super) fn new(
        rank: usize,
        stream: TcpStream,
        patience: Duration,
    ) -> Result<Self, GroupError> {
        let peer = Self {
            rank,
            stream,
            patience,
        };
        // A message is written whole: waiting for more to send would only delay it.
        let set = peer.stream.set_nodelay(true);
        set.map_err(|source| peer.lost(source))?;
        peer.set_patience(patience)?;
        Ok(peer)
    }

    /// Limits how long one read or write may take, `patience` above 0.
    pub(super) fn set_patience(&self, patience: Duration) -> Result<(), GroupError> {
        let patience = Some(patience.max(Duration::from_millis(1)));
        let read = self.stream.set_read_timeout(patience);
        let both = read.and_then(|()| self.stream.set_write_timeout(patience));
        both.map_err(|source| self.lost(source))
    }

    /// Sends one message.
    pub(super) fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), GroupError> {
        let written = write_message(&mut self.stream, kind, payload);
        written.map_err(|source| self.last_words().unwrap_or_else(|| self.lost(source)))
    }

    /// Waits for the next message, which has to be of this kind and of `length` bytes.
    pub(super) fn receive(&mut self, kind: Kind, length: usize) -> Result<Vec<u8>, GroupError> {
        let (found, found_length) = self.header().map_err(|source| self.lost(source))?;
        if found == Kind::Leave as u32 {
            return Err(self.left(found_length));
        }
        if (found, found_length) != (kind as u32, length as u64) {
            let found = match Kind::named(found) {
                Some(kind) => format!("{kind:?} of {found_length} bytes"),
                None => format!("a message of unknown kind {found}"),
            };
            return Err(GroupError::OutOfStep {
                rank: self.rank,
                expected: format!("{kind:?} of {length} bytes"),
                found,
            });
        }
        let mut payload = vec![0; length];
        let read = self.stream.read_exact(&mut payload);
        read.map_err(|source| self.lost(source))?;
        Ok(payload)
    }

    /// Says why there will be no more messages. The other side may be gone already.
    pub(super) fn leave(&mut self, reason: &str) {
        let bytes = &reason.as_bytes()[..reason.len().min(LONGEST_REASON)];
        let _ = self.set_patience(Duration::from_secs(1));
        let _ = write_message(&mut self.stream, Kind::Leave, bytes);
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The system's number of the connection, for as long as this lives.
    #[cfg(feature = "nccl")]
    pub(super) fn descriptor(&self) -> io::Result<std::os::fd::OwnedFd> {
        self.stream.try_clone().map(Into::into)
    }

    fn header(&mut self) -> io::Result<(u32, u64)> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header)?;
        let [a, b, c, d, length @ ..] = header;
        Ok((u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(length)))
    }

    /// What the other side said before it stopped listening, if it did.
    fn last_words(&mut self) -> Option<GroupError> {
        let end = Instant::now() + Duration::from_secs(1);
        self.set_patience(Duration::from_secs(1)).ok()?;
        while Instant::now() < end {
            let (kind, length) = self.header().ok()?;
            if kind == Kind::Leave as u32 {
                return Some(self.left(length));
            }
            // An answer that crossed our message.
            let skipped = io::copy(&mut (&self.stream).take(length), &mut io::sink());
            skipped.ok()?;
        }
        None
    }

    fn left(&mut self, length: u64) -> GroupError {
        let mut bytes = Vec::new();
        let mut words = (&self.stream).take(length.min(LONGEST_REASON as u64));
        let _ = words.read_to_end(&mut bytes);
        GroupError::Left {
            rank: self.rank,
            reason: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    fn lost(&self, source: io::Error) -> GroupError {
        let (rank, waited) = (self.rank, self.patience);
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                GroupError::Silent { rank, waited }
            }
            io::ErrorKind::UnexpectedEof => {
                let source = io::Error::other("it was closed without a word");
                GroupError::Lost { rank, source }
            }
            _ => GroupError::Lost { rank, source },
        }
    }
}

fn write_message(stream: &mut TcpStream, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    header[4..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    // In one piece where it is small.
    if payload.len() <= LONGEST_REASON {
        return stream.write_all(&[&header, payload].concat());
    }
    stream.write_all(&header)?;
    stream.write_all(payload)
}
