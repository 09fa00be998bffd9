//! What this machine is: written into every run, printed by `doctor`.

use std::fs;
use std::path::Path;
use std::thread;

use serde::Serialize;

/// Facts about the machine that matter to the speed of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Model name of the processor, or the architecture where the system does not tell.
    pub cpu: String,
    /// Logical cores that this process may use.
    pub cores: usize,
    /// Instruction sets that the kernels can make use of, among those that the processor has.
    pub instruction_sets: Vec<&'static str>,
    /// Memory that this process may use, in bytes; `None` where the system does not tell.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// Asks the system.
    pub fn detect() -> Self {
        Self {
            cpu: cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            instruction_sets: instruction_sets(),
            memory_bytes: memory_bytes(),
        }
    }
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    found
        .into_iter()
        .filter(|(_, present)| *present)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    // NEON is part of the architecture.
    vec!["neon"]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

/// The smaller of the machine's memory and the control group's limit, which is what a container gets.
fn memory_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let total = total_of(&meminfo)?;
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
    Some(limit.map_or(total, |limit| limit.min(total)))
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes that may still be written to the file system of `folder`; `None` where the system does not tell.
#[cfg(unix)]
pub fn free_disk_bytes(folder: &Path) -> Option<u64> {
    use std::ffi::CString;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;

    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string and `answer` has room for the structure that the call fills in.
    let status = unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) };
    if status != 0 {
        return None;
    }
    // SAFETY: statvfs returned 0, so it has filled the whole structure.
    let answer = unsafe { answer.assume_init() };
    // The two fields have other widths on other systems.
    #[allow(clippy::unnecessary_cast)]
    Some(answer.f_bavail as u64 * answer.f_frsize as u64)
}

/// Bytes that may still be written to the file system of `folder`; `None` where the system does not tell.
#[cfg(not(unix))]
pub fn free_disk_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// Bytes in words: `"12.5 MiB"`, and from 1 GiB on `"1.9 GiB"`.
pub fn bytes_in_words(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..0x4000_0000 => (1u64 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total_and_no_other_line() {
        let text = "MemFree:  77 kB\nMemTotal:       16384256 kB\nMemAvailable: 3 kB\n";
        assert_eq!(total_of(text), Some(16_384_256 * 1024));
        assert_eq!(total_of("MemFree: 77 kB\n"), None);
        assert_eq!(total_of("MemTotal: many kB\n"), None);
    }

    #[test]
    fn sizes_in_words() {
        assert_eq!(bytes_in_words(3 << 29), "1.5 GiB");
        assert_eq!(bytes_in_words(25 << 19), "12.5 MiB");
        assert_eq!(bytes_in_words(0), "0.0 MiB");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_does_not_exist_has_no_free_space() {
        assert_eq!(free_disk_bytes(Path::new("/no/such/folder")), None);
        assert!(free_disk_bytes(&std::env::temp_dir()).is_some());
    }
}
