//! How long a source takes to open or to be read, as one JSON line; `cargo xtask bench loader` runs it.
//!
//! `open_source open PATH`: time to open the training part, and the process's memory then and at its worst moment. `open_source
//! read PATH`: time to read all files of it once, in an order drawn from a fixed seed, nothing being decoded.
//! `open_source forget PATH`: has the system drop the files below PATH from its page cache.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use eqco_data::{Split, open};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [work, path] = &arguments[..] else {
        return Err("expected open|read|forget PATH".into());
    };
    match work.as_str() {
        "open" => opened(path),
        "read" => read(path),
        "forget" => forget(Path::new(path)),
        other => Err(format!("expected open, read or forget, found {other}").into()),
    }
}

fn opened(path: &str) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let dataset = open(path, Split::Train)?;
    let seconds = start.elapsed().as_secs_f64();
    let last = dataset.describe(dataset.len() - 1);
    assert!(!last.is_empty());
    let [resident, peak] = ["VmRSS:", "VmHWM:"].map(memory);
    let images = dataset.len();
    println!(
        "{{\"images\": {images}, \"seconds\": {seconds}, \"resident_bytes\": {resident}, \"peak_bytes\": {peak}}}"
    );
    Ok(())
}

/// A size that Linux tells of this process, in bytes; 0 elsewhere.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.map_or(0, |kib| kib << 10)
}

fn read(path: &str) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let dataset = open(path, Split::Train)?;
    let mut order: Vec<usize> = (0..dataset.len()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for last in (1..order.len()).rev() {
        order.swap(last, random.next_u32() as usize % (last + 1));
    }
    let mut bytes = 0;
    for &index in &order {
        let file = dataset.encoded(index)?.ok_or("expected image files")?;
        // A memory map reads what is looked at.
        bytes += file.iter().fold(0, |sum, byte| sum ^ usize::from(*byte)) & 1;
        bytes += file.len();
    }
    let (images, seconds) = (order.len(), start.elapsed().as_secs_f64());
    std::hint::black_box(bytes);
    println!("{{\"images\": {images}, \"seconds\": {seconds}}}");
    Ok(())
}

#[cfg(target_os = "linux")]
fn forget(path: &Path) -> Result<(), Box<dyn Error>> {
    use std::os::fd::AsRawFd;

    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            forget(&entry?.path())?;
        }
        return Ok(());
    }
    let file = fs::File::open(path)?;
    // Pages that are not on the disk yet would stay.
    file.sync_all()?;
    // SAFETY: the descriptor is that of an open file.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if refused != 0 {
        return Err(std::io::Error::from_raw_os_error(refused).into());
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &Path) -> Result<(), Box<dyn Error>> {
    Err("only Linux drops files from its page cache".into())
}
