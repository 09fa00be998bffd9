//! For tests: a server on this machine that can misbehave on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::download::Manners;

/// Small segments and short pauses, so that a test sees many of them.
pub const MANNERS: Manners = Manners {
    segment_bytes: 1000,
    connections: 3,
    attempts: 3,
    first_pause: Duration::from_millis(1),
    patience: Duration::from_secs(20),
};

/// How the server treats its n-th request, counted from 0, with this many bytes to send.
pub type Conduct = fn(request: usize, length: usize) -> Treatment;

pub enum Treatment {
    /// Answers as asked.
    Serve,
    /// Closes the connection after this many bytes of content.
    CutAfter(usize),
    /// Sends the whole file with status 200, whatever range was asked for, cut after this many.
    IgnoreRange(usize),
    /// Answers with this status line.
    Refuse(&'static str),
    /// Sends the client to this path.
    Redirect(&'static str),
}

/// Serves one file under every path, at `address`.
pub struct Server {
    pub address: String,
    /// The `Range` values that were asked for, in order.
    ranges: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves `content` for as long as the test runs.
    pub fn start(content: Vec<u8>, conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/set.tgz", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (content, seen) = (Arc::new(content), ranges.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (content, seen) = (content.clone(), seen.clone());
                // A connection that the client drops is part of the plan.
                std::thread::spawn(move || answer(stream?, &content, &seen, conduct));
            }
        });
        Self { address, ranges }
    }

    /// The ranges that were asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.ranges.lock().unwrap().clone()
    }
}

/// Answers one request and closes the connection.
fn answer(
    mut stream: TcpStream,
    content: &[u8],
    seen: &Mutex<Vec<String>>,
    conduct: Conduct,
) -> std::io::Result<()> {
    let mut range = String::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
            range = value.to_owned();
        }
    }
    let request = {
        let mut seen = seen.lock().unwrap();
        seen.push(range.clone());
        seen.len() - 1
    };
    let (first, last) = range.split_once('-').expect("each request has a range");
    let (first, end): (usize, usize) = (first.parse().unwrap(), 1 + last.parse::<usize>().unwrap());
    let partial = |length: usize| {
        let head = format!(
            "206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}",
            content.len(),
            end - first
        );
        (head, &content[first..end.min(first + length)])
    };
    let (head, body) = match conduct(request, end - first) {
        Treatment::Serve => partial(usize::MAX - first),
        Treatment::CutAfter(length) => partial(length),
        Treatment::IgnoreRange(length) => {
            let head = format!("200 OK\r\nContent-Length: {}", content.len());
            (head, &content[..length.min(content.len())])
        }
        Treatment::Refuse(status) => (format!("{status}\r\nContent-Length: 0"), &content[..0]),
        Treatment::Redirect(path) => {
            let head = format!("302 Found\r\nLocation: {path}\r\nContent-Length: 0");
            (head, &content[..0])
        }
    };
    write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)
}
