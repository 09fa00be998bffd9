//! Opening a packed file takes no memory for its images. One test, alone in its process: the allocator counts what every
//! thread asks for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use eqco_data::dataset::packed::PackWriter;
use eqco_data::{Split, open};

struct CountingAllocator;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

// SAFETY: every call is handed on to the system's allocator unchanged; the counters do not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, hence from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn a_million_images_take_as_much_memory_to_open_as_ten() {
    let root = tempfile::tempdir().unwrap();
    let classes: Vec<String> = (0..10).map(|class| format!("class {class}")).collect();
    let needed = [10, 1_000_000].map(|count: u32| {
        // Names of one length, so that paths take equally many bytes.
        let path = root.path().join(format!("{count:07}.eqco"));
        let mut writer = PackWriter::create(&path, "many", &classes).unwrap();
        for index in 0..count {
            let body = index.to_le_bytes();
            writer.add(Split::Train, Some(index % 10), &body).unwrap();
        }
        writer.finish().unwrap();
        let source = path.to_str().unwrap().to_owned();
        let before = [&CALLS, &BYTES].map(|counter| counter.load(Ordering::Relaxed));
        let dataset = open(&source, Split::Train).unwrap();
        let after = [&CALLS, &BYTES].map(|counter| counter.load(Ordering::Relaxed));
        let last = count - 1;
        assert_eq!(dataset.len(), count as usize);
        assert_eq!(dataset.label(last as usize), Some(9));
        let body = dataset.encoded(last as usize).unwrap().unwrap();
        assert_eq!(*body, last.to_le_bytes());
        [after[0] - before[0], after[1] - before[1]]
    });
    assert_eq!(needed[0], needed[1], "calls and bytes");
    assert!(needed[0][0] < 50 && needed[0][1] < 4096, "{needed:?}");
}
