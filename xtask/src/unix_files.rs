//! What files have on Unix and not elsewhere: permission to be run, symbolic links, names for a shell.

use std::io;
use std::path::Path;

/// Lets everyone run the file; does nothing where files have no such permission.
#[cfg(unix)]
pub fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Lets everyone run the file; does nothing where files have no such permission.
#[cfg(not(unix))]
pub fn make_executable(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes the symbolic link `path` that leads to `target`, in place of a link of other content.
///
/// True when something had to be done. A file of that name is left alone, which is an error.
#[cfg(unix)]
pub fn link(target: &Path, path: &Path) -> io::Result<bool> {
    if let Ok(present) = std::fs::read_link(path) {
        if present == target {
            return Ok(false);
        }
        std::fs::remove_file(path)?;
    }
    std::os::unix::fs::symlink(target, path)?;
    Ok(true)
}

/// Symbolic links are not made here.
#[cfg(not(unix))]
pub fn link(_target: &Path, _path: &Path) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Writes the file where it does not hold `content` yet, whole or not at all. True when it was written.
pub fn write_whole(path: &Path, content: &str, executable: bool) -> io::Result<bool> {
    if std::fs::read(path).is_ok_and(|present| present == content.as_bytes()) {
        return Ok(false);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, content)?;
    if executable {
        make_executable(beside.as_ref())?;
    }
    std::fs::rename(&beside, path)?;
    Ok(true)
}

/// `text` as one word of a POSIX shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// For tests: what `command`, a program written just now, prints.
///
/// A program that another thread starts meanwhile has our files open until it runs; for so long, ours count as being written
/// and are not run (shells answer 126).
#[cfg(test)]
pub fn printed(command: &mut std::process::Command) -> String {
    for _ in 0..500 {
        match command.output() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
            Ok(output) if output.status.code() == Some(126) => {}
            outcome => {
                let output = outcome.unwrap();
                assert!(output.status.success(), "{command:?}: {output:?}");
                return String::from_utf8(output.stdout).unwrap();
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{command:?} is busy all the time");
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_made_once_and_corrected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libx.so");
        assert!(link(Path::new("libx.so.1"), &path).unwrap());
        assert!(!link(Path::new("libx.so.1"), &path).unwrap());
        assert!(link(Path::new("libx.so.2"), &path).unwrap());
        assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("libx.so.2"));

        let file = folder.path().join("mine");
        std::fs::write(&file, "content").unwrap();
        assert!(link(Path::new("libx.so.1"), &file).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"content");
    }

    #[test]
    fn a_file_is_written_once() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        assert!(write_whole(&path, "one", true).unwrap());
        assert!(!write_whole(&path, "one", true).unwrap());
        assert!(write_whole(&path, "two", true).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["plain", "two words", "it's", "$HOME `x` \"y\" \\", ""] {
            let script = format!("printf %s {}", quoted(text));
            let told = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(told.stdout).unwrap(), text);
        }
    }
}
