//! For tests: a hub on this machine that can misbehave on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    /// FIRST of `Range: bytes=FIRST-`.
    pub(super) first: Option<usize>,
    pub(super) authorization: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// The status line behind the version; "200 OK" if empty.
    pub(super) status: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content: Vec<u8>,
    /// The length that is announced, if it is not the true one.
    pub(super) announced: Option<usize>,
    /// Closes the connection after this many bytes of content.
    pub(super) cut_after: Option<usize>,
}

impl Reply {
    pub(super) fn status(status: &'static str) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// A file as it was asked for, from the first byte on or from another.
    pub(super) fn file(content: &[u8], asked: &Asked) -> Self {
        let reply = match asked.first {
            None => Self::default(),
            Some(first) => {
                let range = format!("bytes {first}-{}/{}", content.len() - 1, content.len());
                Self::status("206 Partial Content").with("Content-Range", range)
            }
        };
        Self {
            content: content[asked.first.unwrap_or(0)..].to_vec(),
            ..reply
        }
    }
}

/// Answers as a closure says, for as long as the test runs.
pub(super) struct Server {
    /// Without a slash at the end.
    pub(super) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `answer` is given the number of the request among those for the same method and path, from 0 on.
    pub(super) fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let Some((stream, asked)) = read(stream.unwrap()) else {
                        return;
                    };
                    let number = {
                        let mut log = log.lock().unwrap();
                        let same = |a: &&Asked| a.method == asked.method && a.path == asked.path;
                        let number = log.iter().filter(same).count();
                        log.push(asked.clone());
                        number
                    };
                    write(stream, &asked, &answer(&asked, number));
                });
            }
        });
        Self { address, asked }
    }

    /// All requests until now, in order.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: TcpStream) -> Option<(TcpStream, Asked)> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let mut asked = Asked {
        method: words.next()?.to_owned(),
        path: words.next()?.trim_start_matches('/').to_owned(),
        first: None,
        authorization: None,
    };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let range = value.strip_prefix("bytes=")?;
                asked.first = Some(range.strip_suffix('-')?.parse().ok()?);
            }
            "authorization" => asked.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some((stream, asked))
}

fn write(mut stream: TcpStream, asked: &Asked, reply: &Reply) {
    let status = if reply.status.is_empty() {
        "200 OK"
    } else {
        reply.status
    };
    let length = reply.announced.unwrap_or(reply.content.len());
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    // To HEAD, the content's length is a header like others.
    let has_length = reply
        .headers
        .iter()
        .any(|(name, _)| *name == "Content-Length");
    if !has_length {
        head += &format!("Content-Length: {length}\r\n");
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let sent = reply
        .cut_after
        .unwrap_or(usize::MAX)
        .min(reply.content.len());
    // The client may have gone.
    let _ = stream.write_all(head.as_bytes());
    if asked.method != "HEAD" {
        let _ = stream.write_all(&reply.content[..sent]);
    }
}
