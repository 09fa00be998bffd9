//! What damaged Parquet files and large sets cost. One test, alone in its process: the allocator counts what every thread
//! allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use eqco_data::dataset::Parquet;
use eqco_data::{Dataset, Split};

/// The system's allocator, counting.
struct CountingAllocator;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn count(size: usize) {
    let now = ALLOCATED.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is handed on to the system's allocator unchanged; the counters do not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above, hence from the system.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }
}

/// Bytes allocated at the worst moment of `run`, beyond what was allocated before.
fn peak_bytes(run: impl FnOnce()) -> usize {
    let before = ALLOCATED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    run();
    PEAK.load(Ordering::Relaxed) - before
}

fn golden() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
    let files = folder.read_dir().unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn file(name: &str) -> PathBuf {
    let ending = format!("{name}.parquet");
    golden()
        .into_iter()
        .find(|path| path.ends_with(&ending))
        .unwrap()
}

/// A copy of a file whose first page, a dictionary, says that it has `claim` bytes without compression. Nothing else moves: what the larger
/// number takes is taken off the page's content.
fn claiming(claim: i32, path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    // Behind the magic: field 1 and the page's kind, field 2 and this size, field 3 and the size in the file, all of two bytes.
    assert_eq!([bytes[4], bytes[6], bytes[9]], [0x15; 3]);
    assert!(bytes[7] >= 0x80 && bytes[8] < 0x80 && bytes[10] >= 0x80 && bytes[11] < 0x80);
    let varint = |mut value: u32, length: usize| {
        let mut bytes = vec![0x80; length];
        for byte in &mut bytes {
            *byte |= value as u8 & 0x7f;
            value >>= 7;
        }
        bytes[length - 1] &= 0x7f;
        bytes
    };
    let stored = u32::from(bytes[10] & 0x7f) | u32::from(bytes[11]) << 7;
    // A dictionary's header ends with "not sorted" and the ends of two structs.
    let ending = bytes.windows(3).position(|three| three == [0x12, 0, 0]);
    let header_end = ending.unwrap() + 3;
    let size = varint((claim as u32).wrapping_mul(2), 5);
    let stored = varint(stored - 2 * 3, 2);
    let about = &bytes[12..header_end];
    [
        &bytes[..7],
        &size,
        &[0x15],
        &stored,
        about,
        &bytes[header_end + 3..],
    ]
    .concat()
}

/// Opens a file and asks for all its images. What comes is not looked at: nothing may panic or take much memory.
fn read_all(path: &Path) -> (usize, usize) {
    let Ok(dataset) = Parquet::open(path, "damaged", Split::Train) else {
        return (0, 0);
    };
    let read = (0..dataset.len())
        .step_by(2)
        .filter(|&at| dataset.encoded(at).is_ok());
    (1, read.count())
}

#[test]
fn damage_costs_no_memory_and_pages_no_more_than_their_budget() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("train.parquet");

    // zstd's tables and window make up most of it. Each file has 10 KB at most.
    let bound = 4 << 20;
    let (mut worst, mut opened, mut read) = (0, 0, 0);
    for source in golden() {
        let whole = fs::read(&source).unwrap();
        let mut state = 1_u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for case in 0..60 {
            let mut bytes = whole.clone();
            // Headers and footers are where damage hurts; large numbers hurt most.
            let at = match case % 2 {
                0 => random(bytes.len()),
                _ => bytes.len() - 1 - random(bytes.len().min(1200)),
            };
            let length = 1 + random(5);
            for byte in bytes.iter_mut().skip(at).take(length) {
                *byte = if case % 3 == 0 {
                    0xff
                } else {
                    random(256) as u8
                };
            }
            if case % 5 == 0 {
                bytes.drain(..random(40));
            }
            fs::write(&path, &bytes).unwrap();
            let mut outcome = (0, 0);
            worst = worst.max(peak_bytes(|| outcome = read_all(&path)));
            opened += outcome.0;
            read += outcome.1;
        }
    }
    assert!(worst < bound, "{worst} bytes for a file of 10 KB");
    // The damage must not be such that all files are refused at once.
    assert!(
        opened > 500 && read > 10_000,
        "{opened} opened, {read} images read"
    );

    // Two gigabytes are more than the memory for pages; 200 MiB are not, but no page of a few KB has them.
    for (claim, name) in [i32::MAX, 200 << 20].into_iter().flat_map(|claim| {
        let names = ["snappy-dictionary", "gzip-dictionary-v2", "nulls-zstd-v2"];
        names.map(|name| (claim, name))
    }) {
        fs::write(&path, claiming(claim, &file(name))).unwrap();
        let peak = peak_bytes(|| {
            let dataset = Parquet::open(&path, name, Split::Train).unwrap();
            assert!(dataset.encoded(0).is_err(), "{name}");
        });
        assert!(peak < bound, "{name}: {peak} bytes for a claim of {claim}");
    }

    // One of these has 5 KB of decoded pages; 2 KB are there for them.
    for name in ["snappy-dictionary-full", "zstd-v1"] {
        let all = Parquet::open(&file(name), name, Split::Train).unwrap();
        let dataset = all.with_cache_bytes(2 << 10);
        let held = || {
            let before = ALLOCATED.load(Ordering::Relaxed);
            (0..dataset.len()).for_each(|index| drop(dataset.encoded(index).unwrap()));
            ALLOCATED.load(Ordering::Relaxed).saturating_sub(before)
        };
        // Places of pages and the cache's own tables come with the first pass, some hundred bytes a page.
        let first = held();
        assert!(first < 12 << 10, "{name}: {first} bytes held");
        assert!(held() < 2 << 10, "{name}");
    }
}
