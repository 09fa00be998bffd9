//! A web server on this machine that can misbehave on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;

/// What was asked, and how many bytes of content were sent.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// Without the slash in front.
    pub path: String,
    /// FIRST of `Range: bytes=FIRST-…`.
    pub first: Option<usize>,
    pub authorization: Option<String>,
    pub sent: usize,
}

/// What is done about it.
#[derive(Clone, Debug, Default)]
pub struct Deed {
    /// The status line behind the version, instead of the file.
    pub status: Option<&'static str>,
    /// The content with that status.
    pub text: String,
    pub headers: Vec<(&'static str, String)>,
    /// Closes the connection after this many bytes of content.
    pub cut_after: Option<usize>,
    /// Another ETag than that of the file; none if it is empty.
    pub etag: Option<String>,
    /// Another length than that of the file.
    pub length: Option<u64>,
    /// Sends the whole file, whatever range is asked for.
    pub ignores_ranges: bool,
    /// Says nothing after the bytes of `cut_after`, and keeps the connection.
    pub hangs: bool,
}

impl Deed {
    pub fn status(status: &'static str) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    pub fn cut_after(bytes: usize) -> Self {
        Self {
            cut_after: Some(bytes),
            ..Self::default()
        }
    }
}

type Files = BTreeMap<String, Vec<u8>>;

/// Serves files for as long as the test runs.
pub struct Server {
    /// `http://HOST:PORT`.
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `deed` is given the number of the request among those for the same method and path, from 0 on.
    pub fn start(
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
        deed: impl Fn(&Asked, usize) -> Deed + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let shared = Arc::new((
            files.into_iter().collect::<Files>(),
            deed,
            Arc::clone(&asked),
        ));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (files, deed, log) = &*shared;
                    let Some((stream, asked)) = read(stream.unwrap()) else {
                        return;
                    };
                    let place = {
                        let mut log = log.lock().unwrap();
                        log.push(asked.clone());
                        log.len() - 1
                    };
                    let same = |a: &&Asked| a.method == asked.method && a.path == asked.path;
                    let number = log.lock().unwrap()[..place].iter().filter(same).count();
                    answer(stream, files, &asked, &deed(&asked, number), &|sent| {
                        log.lock().unwrap()[place].sent = sent;
                    });
                });
            }
        });
        Self { address, asked }
    }

    /// Serves files as they are.
    pub fn of(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self::start(files, |_, _| Deed::default())
    }

    /// All requests until now, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Those that brought a file of this name, or tried to.
    pub fn transfers(&self, name: &str) -> Vec<Asked> {
        let of_it = |asked: &Asked| asked.method == "GET" && asked.path.ends_with(name);
        self.asked().into_iter().filter(of_it).collect()
    }
}

fn read(stream: TcpStream) -> Option<(TcpStream, Asked)> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let mut asked = Asked {
        method: words.next()?.to_owned(),
        path: words.next()?.strip_prefix('/')?.to_owned(),
        ..Asked::default()
    };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let range = value.strip_prefix("bytes=")?;
                asked.first = Some(range.split('-').next()?.parse().ok()?);
            }
            "authorization" => asked.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some((stream, asked))
}

fn answer(stream: TcpStream, files: &Files, asked: &Asked, deed: &Deed, sent: &dyn Fn(usize)) {
    let Some(status) = deed.status else {
        let Some(file) = files.get(&asked.path) else {
            return write(stream, asked, "404 Not Found", &[], (b"", 0..0), deed, sent);
        };
        let first = asked.first.filter(|_| !deed.ignores_ranges);
        let etag = format!("\"{}-{}\"", asked.path.len(), file.len());
        let mut headers = vec![("ETag", deed.etag.clone().unwrap_or(etag))];
        let status = match first {
            Some(first) => {
                let range = format!("bytes {first}-{}/{}", file.len() - 1, file.len());
                headers.push(("Content-Range", range));
                "206 Partial Content"
            }
            None => "200 OK",
        };
        let range = first.unwrap_or(0)..file.len();
        return write(stream, asked, status, &headers, (file, range), deed, sent);
    };
    let text = deed.text.as_bytes();
    write(
        stream,
        asked,
        status,
        &[],
        (text, 0..text.len()),
        deed,
        sent,
    );
}

fn write(
    mut stream: TcpStream,
    asked: &Asked,
    status: &str,
    headers: &[(&str, String)],
    (content, range): (&[u8], Range<usize>),
    deed: &Deed,
    sent: &dyn Fn(usize),
) {
    let length = deed.length.unwrap_or(range.len() as u64);
    let mut head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    let deeds = deed.headers.iter().map(|(name, value)| (name, value));
    for (name, value) in headers
        .iter()
        .map(|(name, value)| (name, value))
        .chain(deeds)
    {
        if !value.is_empty() {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head += "\r\n";
    let count = deed.cut_after.unwrap_or(usize::MAX).min(range.len());
    if asked.method == "HEAD" {
        let _ = stream.write_all(head.as_bytes());
        return;
    }
    sent(count);
    // The client may have gone.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&content[range.start..range.start + count]);
    if deed.hangs {
        // For as long as the client keeps it.
        let _ = stream.flush();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
}
