//! Where the first task of a Slurm job step is.

use super::error::RanksError;

const HOSTS: &str = "SLURM_JOB_NODELIST";

/// Ports of jobs begin here, and are so many.
const PORTS: (usize, usize) = (15_000, 20_000);

/// The first machine of the job, on which its first task runs.
///
/// Lists are Slurm's: `gpu[07-12,15]`, `a,b`, `node3`. With something behind the brackets they are not taken apart.
pub(super) fn first_host(lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, RanksError> {
    let list = lookup(HOSTS).unwrap_or_default();
    first_of(&list).ok_or(RanksError::NoHost {
        variable: HOSTS,
        found: list,
    })
}

fn first_of(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    if !rest.starts_with('[') {
        return (!name.is_empty()).then(|| name.to_owned());
    }
    let (numbers, behind) = rest[1..].split_once(']')?;
    let first = numbers.split([',', '-']).next()?;
    let is_plain = first.chars().all(|c| c.is_ascii_digit()) && !first.is_empty();
    let is_end = behind.is_empty() || behind.starts_with(',');
    (is_plain && is_end).then(|| format!("{name}{first}"))
}

/// A port that jobs on one machine do not share.
pub(super) fn port_of_job(job: usize) -> u16 {
    (PORTS.0 + job % PORTS.1) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_is_taken_out_of_simple_lists_alone() {
        for (list, first) in [
            ("node3", Some("node3")),
            ("gpu[07-12,15]", Some("gpu07")),
            ("a,b[1-2]", Some("a")),
            ("n[4,9],m[1-2]", Some("n4")),
            ("rack[1-2]node", None),
            ("rack[1-2]n[3-4]", None),
            ("n[", None),
            ("n[]", None),
            ("", None),
        ] {
            assert_eq!(first_of(list).as_deref(), first, "{list}");
        }
    }

    #[test]
    fn ports_of_jobs_are_above_those_of_services() {
        assert_eq!(port_of_job(1_234_567), 15_000 + 14_567);
        assert_eq!(port_of_job(19_999), 34_999);
    }
}
