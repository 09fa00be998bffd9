//! How processes find each other: rank 0 listens, the others introduce themselves.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use super::error::GroupError;
use super::peer::{Kind, Peer};

/// Begins the introduction, so that a stranger's connection is told apart; the last byte is the protocol's version.
const GREETING: [u8; 8] = *b"eqcogrp1";
/// Between two looks at who has come, or two tries to reach rank 0.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a connection may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// Where and how long the processes of a group wait for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// This process, from 0.
    pub rank: usize,
    /// All processes.
    pub size: usize,
    /// Name or address of the machine of rank 0.
    pub host: String,
    /// The port that rank 0 listens on. Whoever reaches it can disturb the run: it is for networks that one trusts.
    pub port: u16,
    /// How long to wait until all are there.
    pub wait: Duration,
    /// How long another process may be silent afterwards; it is while rank 0 evaluates.
    pub patience: Duration,
}

impl Rendezvous {
    /// Connects this process to rank 0, or, on rank 0, to all others in the order of their ranks.
    pub(super) fn meet(&self) -> Result<Vec<Peer>, GroupError> {
        let (rank, size) = (self.rank, self.size);
        if rank >= size || u32::try_from(size).is_err() {
            return Err(GroupError::NoSuchRank { rank, size });
        }
        let end = Instant::now() + self.wait;
        if rank == 0 {
            self.gather(end)
        } else {
            Ok(vec![self.reach(end)?])
        }
    }

    fn gather(&self, end: Instant) -> Result<Vec<Peer>, GroupError> {
        let failed = |source| GroupError::Bind {
            port: self.port,
            source,
        };
        let listener = self.listen().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let mut seats: Vec<Option<Peer>> = (1..self.size).map(|_| None).collect();
        let outcome = self.fill(&listener, &mut seats, end);
        let mut peers: Vec<Peer> = seats.into_iter().flatten().collect();
        if let Err(error) = outcome {
            for peer in &mut peers {
                peer.leave(&error.to_string());
            }
            return Err(error);
        }
        for peer in &mut peers {
            peer.send(Kind::Welcome, &[])?;
        }
        Ok(peers)
    }

    /// Lets processes in until each has its seat.
    fn fill(
        &self,
        listener: &TcpListener,
        seats: &mut [Option<Peer>],
        end: Instant,
    ) -> Result<(), GroupError> {
        while seats.iter().any(Option::is_none) {
            if Instant::now() >= end {
                let ranks = seats.iter().enumerate().filter(|(_, seat)| seat.is_none());
                return Err(GroupError::Missing {
                    missing: ranks.map(|(place, _)| place + 1).collect(),
                    size: self.size,
                    waited: self.wait,
                });
            }
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(PAUSE);
                continue;
            };
            // What does not speak our language is no process of ours, and is let go.
            let Ok((rank, size)) = introduction(&stream) else {
                continue;
            };
            self.seat(seats, rank, size, stream)?;
        }
        Ok(())
    }

    fn seat(
        &self,
        seats: &mut [Option<Peer>],
        rank: u32,
        size: u32,
        stream: TcpStream,
    ) -> Result<(), GroupError> {
        let mut peer = Peer::new(rank as usize, stream, self.patience)?;
        let place = (rank as usize).checked_sub(1);
        let seat = place.and_then(|place| seats.get_mut(place));
        let problem = match seat {
            _ if size as usize != self.size => format!("but rank 0 expects {}", self.size),
            Some(seat) if seat.is_none() => {
                *seat = Some(peer);
                return Ok(());
            }
            Some(_) => "which is there already".to_owned(),
            None => "which is not a rank of the others".to_owned(),
        };
        let error = GroupError::Misfit {
            rank,
            size,
            problem,
        };
        peer.leave(&error.to_string());
        Err(error)
    }

    /// Listens for this machine alone where the address says so, and for all others otherwise.
    fn listen(&self) -> io::Result<TcpListener> {
        let literal: Option<IpAddr> = self.host.parse().ok();
        let local = literal.filter(IpAddr::is_loopback);
        if self.host == "localhost" || local.is_some() {
            let address = local.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            return TcpListener::bind((address, self.port));
        }
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, self.port)).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            // A machine without IPv6.
            _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)),
        })
    }

    fn reach(&self, end: Instant) -> Result<Peer, GroupError> {
        let unreachable = |problem: String| GroupError::Unreachable {
            address: format!("{}:{}", self.host, self.port),
            waited: self.wait,
            problem,
        };
        let stream = loop {
            match self.knock(end) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() + PAUSE >= end => {
                    return Err(unreachable(error.to_string()));
                }
                // It may not have started yet.
                Err(_) => thread::sleep(PAUSE),
            }
        };
        let mut peer = Peer::new(0, stream, self.patience)?;
        // Rank 0 waits as long for the others; its own report of who is missing is the better one.
        let grace = self.wait / 4 + Duration::from_millis(500);
        peer.set_patience(end.saturating_duration_since(Instant::now()) + grace)?;
        peer.receive(Kind::Welcome, 0)
            .map_err(|error| match error {
                GroupError::Silent { .. } => {
                    unreachable("it took the call and said nothing".into())
                }
                other => other,
            })?;
        peer.set_patience(self.patience)?;
        Ok(peer)
    }

    /// One try to reach rank 0 and to say who is calling.
    fn knock(&self, end: Instant) -> io::Result<TcpStream> {
        let mut last = io::Error::other("the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
            match TcpStream::connect_timeout(&address, left) {
                Ok(mut stream) => {
                    let (rank, size) = (self.rank as u32, self.size as u32);
                    let [rank, size] = [rank.to_le_bytes(), size.to_le_bytes()];
                    stream.write_all(&[&GREETING[..], &rank, &size].concat())?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Rank and number of processes that the caller gives.
fn introduction(mut stream: &TcpStream) -> io::Result<(u32, u32)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(INTRODUCTION))?;
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes)?;
    let [greeting @ .., a, b, c, d, e, f, g, h] = bytes;
    if greeting != GREETING {
        return Err(io::Error::other("another greeting"));
    }
    Ok((
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ))
}
