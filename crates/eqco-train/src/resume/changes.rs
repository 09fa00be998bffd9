//! What may be another setting when a run goes on.
//!
//! What decides what is learned must stay: a run with half of one temperature and half of another is neither. What decides how
//! fast, where, and how closely watched it is may change, and so may the length of the run, by its user's choice.

use std::collections::BTreeSet;
use std::fmt;

use super::ResumeError;
use crate::config::{TrainConfig, known_keys, value_of};

/// Keys, or sections with a dot behind them, that may change, with what comes of it.
const FREE: &[(&str, Consequence)] = &[
    ("threads", Consequence::Rounding),
    ("device", Consequence::Rounding),
    ("backend", Consequence::Rounding),
    ("winograd", Consequence::Rounding),
    ("cuda.", Consequence::Rounding),
    ("run.", Consequence::None),
    ("evaluation.", Consequence::None),
    // The images must be the same ones, wherever they lie.
    ("data.source", Consequence::None),
    ("data.format", Consequence::None),
    ("data.augment_on", Consequence::None),
    ("data.loader.workers", Consequence::None),
    ("data.loader.max_bad_share", Consequence::None),
    ("schedule.epochs", Consequence::LearningRate),
    // Together with the number of ranks: the images that share statistics must stay.
    ("method.micro_batch", Consequence::Rounding),
];

/// What a change does to the rest of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consequence {
    None,
    Rounding,
    LearningRate,
}

/// A setting that is another one from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The dotted key.
    pub key: String,
    before: String,
    now: String,
    consequence: Consequence,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.before, self.now)?;
        match self.consequence {
            Consequence::None => Ok(()),
            Consequence::Rounding => f.write_str(" (the rest is the same up to rounding)"),
            Consequence::LearningRate => {
                f.write_str(" (the learning rate follows the new length from here on)")
            }
        }
    }
}

/// What `now` has otherwise than `before`, each with its number of ranks.
///
/// # Errors
/// [`ResumeError::Changed`] for the first thing that must stay.
pub fn changes(
    (before, ranks_before): (&TrainConfig, usize),
    (now, ranks_now): (&TrainConfig, usize),
) -> Result<Vec<Change>, ResumeError> {
    let keys: BTreeSet<String> = known_keys(before)
        .into_iter()
        .chain(known_keys(now))
        .collect();
    let mut changes = Vec::new();
    for key in keys {
        let (old, new) = (value_of(before, &key), value_of(now, &key));
        if old == new {
            continue;
        }
        let (old, new) = (old.to_string(), new.to_string());
        match consequence(&key) {
            Some(consequence) => changes.push(Change {
                key,
                before: old,
                now: new,
                consequence,
            }),
            None => {
                let hint = "leave it away to go on as before; for a run of its own with it, choose another --out";
                return Err(must_stay(key, old, new, hint));
            }
        }
    }
    check_statistics((before, ranks_before), (now, ranks_now))?;
    if ranks_before != ranks_now {
        changes.push(Change {
            key: "processes".to_owned(),
            before: ranks_before.to_string(),
            now: ranks_now.to_string(),
            consequence: Consequence::Rounding,
        });
    }
    Ok(changes)
}

fn consequence(key: &str) -> Option<Consequence> {
    let covers = |free: &str| match free.strip_suffix('.') {
        Some(section) => key.starts_with(section) && key[section.len()..].starts_with('.'),
        None => key == free,
    };
    let found = FREE.iter().find(|(free, _)| covers(free));
    found.map(|(_, consequence)| *consequence)
}

/// Another number of ranks is another split of a batch. It takes the same steps only if as many images as before share their
/// batch-norm statistics.
fn check_statistics(
    before: (&TrainConfig, usize),
    now: (&TrainConfig, usize),
) -> Result<(), ResumeError> {
    let (old, new) = (images_together(before), images_together(now));
    if old == new {
        return Ok(());
    }
    let words = |images: usize, ranks: usize| match ranks {
        1 => format!("{images} in one process"),
        _ => format!("{images} in each of {ranks} processes"),
    };
    Err(must_stay(
        "images that share batch-norm statistics".to_owned(),
        words(old, before.1),
        words(new, now.1),
        "start as many processes as before, or give --micro-batch so that as many images as before go through the network \
         together",
    ))
}

fn images_together((config, ranks): (&TrainConfig, usize)) -> usize {
    let method = &config.method;
    match (method.batch_norm_group, method.micro_batch) {
        (0, 0) => config.data.loader.batch_size / ranks.max(1),
        (0, micro_batch) => micro_batch,
        (group, _) => group,
    }
}

fn must_stay(key: String, before: String, now: String, hint: &'static str) -> ResumeError {
    ResumeError::Changed {
        key,
        before,
        now,
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Resolved, read_assignment};

    fn config(settings: &[&str]) -> TrainConfig {
        let settings = settings.iter().map(|text| read_assignment(text).unwrap());
        Resolved::new("demo", None, settings.collect())
            .unwrap()
            .config
    }

    fn between(before: &[&str], now: &[&str]) -> Result<Vec<String>, ResumeError> {
        let found = changes((&config(before), 1), (&config(now), 1))?;
        Ok(found.iter().map(Change::to_string).collect())
    }

    #[test]
    fn what_may_change_is_listed_with_its_consequence() {
        let now = [
            "threads=3",
            "data.loader.workers=2",
            "run.log_every_steps=5",
            "schedule.epochs=30",
            "cuda.tf32=true",
        ];
        assert_eq!(
            between(&[], &now).unwrap(),
            [
                "cuda.tf32: false -> true (the rest is the same up to rounding)",
                "data.loader.workers: 0 -> 2",
                "run.log_every_steps: 1 -> 5",
                "schedule.epochs: 25 -> 30 (the learning rate follows the new length from here on)",
                "threads: 0 -> 3 (the rest is the same up to rounding)",
            ]
        );
        assert_eq!(between(&[], &[]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_decides_the_result_may_not_change() {
        for setting in [
            "seed=1",
            "loss.temperature=0.5",
            "precision=bf16",
            "data.loader.batch_size=32",
            "data.recipe.hue=0.2",
            "encoder.width=8",
            "optimizer.weight_decay=0.5",
            "schedule.warmup_epochs=2.0",
            "data.limit=100",
        ] {
            let (key, now) = setting.split_once('=').unwrap();
            let before = value_of(&config(&[]), key);
            let error = between(&[], &[setting]).unwrap_err();
            let text = error.to_string().replace('"', "");
            let before = before.to_string().replace('"', "");
            let expected = format!("`{key}` is {before} in the run and {now} here, and may not ");
            assert!(text.starts_with(&expected), "{setting}: {text}");
            assert!(error.hint().contains("--out"));
        }
        // A section that begins like a free key is not free.
        assert_eq!(consequence("threads.more"), None);
        assert_eq!(consequence("running"), None);
    }

    #[test]
    fn another_number_of_processes_needs_the_same_groups_of_images() {
        let (whole, half) = (config(&[]), config(&["method.micro_batch=32"]));
        assert_eq!(whole.data.loader.batch_size, 64);
        let error = changes((&whole, 2), (&whole, 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`images that share batch-norm statistics` is 32 in each of 2 processes in the run and 64 in one process here, \
             and may not change while it trains"
        );
        assert!(error.hint().contains("--micro-batch"));
        let found = changes((&whole, 2), (&half, 1)).unwrap();
        let keys: Vec<_> = found.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["method.micro_batch", "processes"]);
        assert!(changes((&half, 1), (&whole, 1)).is_err());
    }
}
