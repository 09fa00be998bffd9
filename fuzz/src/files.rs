//! The files that a target's code under test opens.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder in memory, where the system has one: millions of files are written to it.
fn folder() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("eqco-fuzz-");
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        builder.tempdir_in(memory)
    } else {
        builder.tempdir()
    };
    made.expect("a temporary folder can be made")
}

/// Writes files into an otherwise empty folder and calls `check` with its path. The folder is emptied, not made anew.
pub fn with<T>(files: &[(&str, &[u8])], check: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|kept| {
        let root: PathBuf = kept.get_or_insert_with(folder).path().to_owned();
        empty(&root);
        for (name, bytes) in files {
            fs::write(root.join(name), bytes).expect("a file can be written");
        }
        check(&root)
    })
}

fn empty(root: &Path) {
    for entry in fs::read_dir(root).expect("the folder is there").flatten() {
        fs::remove_file(entry.path()).expect("a file can be removed");
    }
}
