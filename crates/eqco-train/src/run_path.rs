//! Where a run goes when nobody says where.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder that holds `runs/`: the clone that `from` is in, or `from` itself outside of one.
pub fn base(from: &Path) -> PathBuf {
    let is_clone = |folder: &&Path| folder.join("crates/eqco-train/Cargo.toml").is_file();
    from.ancestors().find(is_clone).unwrap_or(from).to_owned()
}

/// The default place of a run: `runs/PRESET-seedSEED-YYYYMMDD-HHMMSS` (UTC) in [`base`]. A number is added when two runs
/// start within one second.
pub fn default_path(from: &Path, preset: &str, seed: u64, now: SystemTime) -> PathBuf {
    let runs = base(from).join("runs");
    let name = format!("{preset}-seed{seed}-{}", timestamp(now));
    let others = (2..).map(|count| format!("{name}-{count}"));
    let mut names = std::iter::once(name.clone()).chain(others);
    names
        .find_map(|name| Some(runs.join(name)).filter(|path| !path.exists()))
        .expect("the list has no end")
}

/// `YYYYMMDD-HHMMSS` in UTC.
fn timestamp(now: SystemTime) -> String {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil_date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day ends a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn timestamps_are_the_civil_calendar() {
        assert_eq!(timestamp(at(0)), "19700101-000000");
        assert_eq!(timestamp(at(951_782_399)), "20000228-235959");
        assert_eq!(timestamp(at(951_782_400)), "20000229-000000");
        assert_eq!(timestamp(at(1_709_251_199)), "20240229-235959");
        assert_eq!(timestamp(at(4_107_542_400)), "21000301-000000");
    }

    #[test]
    fn a_run_has_its_own_folder_in_the_clone_or_where_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("crates/eqco-train/src");
        fs::create_dir_all(&inner).unwrap();
        let expected = inner.join("runs/demo-seed7-19700101-000000");
        assert_eq!(default_path(&inner, "demo", 7, at(0)), expected);

        fs::write(folder.path().join("crates/eqco-train/Cargo.toml"), "").unwrap();
        let expected = folder.path().join("runs/demo-seed7-19700101-000000");
        assert_eq!(default_path(&inner, "demo", 7, at(0)), expected);

        fs::create_dir_all(&expected).unwrap();
        let second = folder.path().join("runs/demo-seed7-19700101-000000-2");
        assert_eq!(default_path(&inner, "demo", 7, at(0)), second);
    }
}
