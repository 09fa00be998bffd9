//! The runs of a sweep: every combination of the varied values, for every seed.

use std::collections::HashSet;

use serde_json::Value;

use super::{Axis, SweepError};
use crate::cli::ConfigArgs;
use crate::config::{Origin, Preset, Resolved, Setting, TrainConfig};

/// One run.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its folder's name: varied settings and seed.
    pub name: String,
    /// The varied values as typed, in the order of the axes.
    pub values: Vec<String>,
    /// Its seed.
    pub seed: u64,
    /// What is set for this run beyond preset and file.
    pub settings: Vec<Setting>,
    /// The whole configuration.
    pub config: TrainConfig,
}

/// All runs.
#[derive(Clone, Debug)]
pub struct Grid {
    /// What is varied.
    pub axes: Vec<Axis>,
    /// The runs; all combinations of the first seed before those of the second, so that a sweep that is not finished yet
    /// has whole figures with fewer seeds.
    pub points: Vec<Point>,
    /// Runs that the cores are meant for.
    pub jobs: usize,
}

impl Grid {
    /// Resolves and checks every run. `jobs` runs are to share `cores`; 0 for as many as there are cores for.
    ///
    /// A run has the threads that the settings say, or an equal share of the cores; without `jobs` that is one thread a
    /// run, for two runs on a thread each get more done than one after the other on both. The baselines of the final
    /// table are left out unless a file or flag asks for them: they are the same for all combinations of a seed.
    ///
    /// # Errors
    /// Any [`SweepError`] about axes and configurations, before anything runs.
    pub fn new(
        axes: &[String],
        seeds: u64,
        jobs: usize,
        cores: usize,
        arguments: &ConfigArgs,
    ) -> Result<Self, SweepError> {
        let axes = axes
            .iter()
            .map(|text| Axis::read(text))
            .collect::<Result<Vec<_>, _>>()?;
        check_axes(&axes)?;
        let base = settings_of_all(arguments, jobs, cores)?;
        let mut points = Vec::new();
        for seed in 0..seeds {
            for choice in choices(&axes) {
                points.push(point(&axes, &choice, seed, seeds, &base, arguments)?);
            }
        }
        let mut names = HashSet::new();
        if let Some(twice) = points.iter().find(|point| !names.insert(&point.name)) {
            let name = twice.name.clone();
            return Err(SweepError::SameName { name });
        }
        let most_threads = points.iter().map(|point| point.config.threads).max();
        let fitting = (cores / most_threads.unwrap_or(1).max(1)).max(1);
        let jobs = if jobs == 0 { fitting } else { jobs };
        Ok(Self { axes, points, jobs })
    }
}

fn check_axes(axes: &[Axis]) -> Result<(), SweepError> {
    let mut keys = HashSet::new();
    match axes.iter().find(|axis| !keys.insert(&axis.key)) {
        Some(axis) => Err(SweepError::SameAxis {
            key: axis.key.clone(),
        }),
        None => Ok(()),
    }
}

/// What all runs have in common beyond preset and file.
fn settings_of_all(
    arguments: &ConfigArgs,
    jobs: usize,
    cores: usize,
) -> Result<Vec<Setting>, SweepError> {
    let failed = |source| SweepError::Point {
        name: "that all others vary".to_owned(),
        source,
    };
    let resolved = arguments.resolve().map_err(failed)?;
    let mut settings = arguments.settings().map_err(failed)?;
    let mut add = |key: &str, value: Value| settings.push(setting(key, value, "sweep"));
    if resolved.config.threads == 0 {
        let threads = cores.checked_div(jobs).unwrap_or(1);
        add("threads", Value::from(threads.max(1)));
    }
    if !resolved.origins.contains_key("run.baselines") {
        add("run.baselines", Value::from(false));
    }
    Ok(settings)
}

/// Every combination of one value an axis, as indices, the last axis changing first.
fn choices(axes: &[Axis]) -> Vec<Vec<usize>> {
    axes.iter().fold(vec![Vec::new()], |choices, axis| {
        let with_each = |choice: &Vec<usize>| {
            let choice = choice.clone();
            (0..axis.values.len()).map(move |index| [&choice[..], &[index]].concat())
        };
        choices.iter().flat_map(with_each).collect()
    })
}

fn point(
    axes: &[Axis],
    choice: &[usize],
    seed: u64,
    seeds: u64,
    base: &[Setting],
    arguments: &ConfigArgs,
) -> Result<Point, SweepError> {
    let mut settings = base.to_vec();
    let mut values = Vec::new();
    let mut parts = Vec::new();
    for (axis, &index) in axes.iter().zip(choice) {
        let (text, value) = &axis.values[index];
        settings.push(setting(&axis.key, value.clone(), "--vary"));
        parts.push(format!("{}-{text}", axis.short_name()));
        values.push(text.clone());
    }
    let named = |parts: &[String]| plain(&parts.join("_"));
    let resolve = |settings: &[Setting]| {
        let preset = arguments.preset.as_deref().unwrap_or(Preset::all()[0].name);
        let resolved = Resolved::new(preset, arguments.config.as_deref(), settings.to_vec());
        resolved.map_err(|source| SweepError::Point {
            name: named(&parts),
            source,
        })
    };
    let seed = resolve(&settings)?.config.seed.saturating_add(seed);
    if seeds > 1 || !axes.iter().any(|axis| axis.key == "seed") {
        settings.push(setting("seed", Value::from(seed), "--seeds"));
    }
    let config = resolve(&settings)?.config;
    let seed_part = format!("seed-{}", config.seed);
    if !parts.contains(&seed_part) {
        parts.push(seed_part);
    }
    Ok(Point {
        name: named(&parts),
        values,
        seed: config.seed,
        settings,
        config,
    })
}

fn setting(key: &str, value: Value, origin: &str) -> Setting {
    Setting {
        key: key.to_owned(),
        value,
        origin: Origin::Flag(origin.to_owned()),
    }
}

/// The name with everything replaced that a shell or a file system may take for something else.
fn plain(name: &str) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() || "._-+".contains(c) {
            c
        } else {
            '-'
        }
    };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(axes: &[&str], seeds: u64, flags: &[&str]) -> Result<Grid, SweepError> {
        let axes: Vec<String> = axes.iter().map(ToString::to_string).collect();
        let set = flags.iter().map(ToString::to_string).collect();
        let arguments = ConfigArgs {
            set,
            ..ConfigArgs::default()
        };
        Grid::new(&axes, seeds, 0, 4, &arguments)
    }

    #[test]
    fn every_combination_once_for_every_seed() {
        let grid = grid(&["negatives=4,16", "alpha=256,infonce"], 2, &["seed=5"]).unwrap();
        let names: Vec<&str> = grid.points.iter().map(|point| &*point.name).collect();
        assert_eq!(names.len(), 8);
        assert_eq!(
            names[..2],
            [
                "negatives-4_alpha-256_seed-5",
                "negatives-4_alpha-infonce_seed-5"
            ]
        );
        assert_eq!(names[7], "negatives-16_alpha-infonce_seed-6");
        assert_eq!(grid.points[7].values, ["16", "infonce"]);
        assert_eq!(grid.points[7].config.method.negative_count, 16);
        assert_eq!((grid.points[0].config.threads, grid.jobs), (1, 4));
        assert!(!grid.points[0].config.run.baselines);
    }

    #[test]
    fn nothing_but_the_varied_keys_and_the_seed_differs() {
        let grid = grid(&["negatives=4,63", "alpha=infonce,decoupled"], 2, &[]).unwrap();
        let mut first = grid.points[0].config.clone();
        for point in &grid.points {
            let config = &point.config;
            first.seed = config.seed;
            first.data.loader.seed = config.seed;
            first.method.negative_count = config.method.negative_count;
            first.loss.alpha = config.loss.alpha;
            assert_eq!(&first, config, "{}", point.name);
        }
    }

    #[test]
    fn the_learning_rate_follows_the_batch_alone() {
        use eqco_models::optim::Schedule;
        let peak = |config: &TrainConfig| {
            let schedule = Schedule::new(&config.schedule, config.data.loader.batch_size).unwrap();
            (0..100)
                .map(|step| schedule.learning_rate(step, 100))
                .fold(0.0, f64::max)
        };
        let grid = grid(
            &["batch-size=32,64", "negatives=4,16"],
            1,
            &["schedule.warmup_epochs=0"],
        )
        .unwrap();
        let peaks: Vec<f64> = grid
            .points
            .iter()
            .map(|point| peak(&point.config))
            .collect();
        assert_eq!((peaks[0], peaks[2]), (peaks[1], peaks[3]));
        assert!((peaks[2] / peaks[0] - 2.0).abs() < 1e-12, "{peaks:?}");
    }

    #[test]
    fn a_combination_that_cannot_be_is_named_before_anything_runs() {
        let error = grid(&["batch-size=32,64", "negatives=4,63"], 1, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the run batch-size-32_negatives-63 cannot be configured"
        );
        assert!(matches!(
            grid(&["negatives=4", "method.negative_count=8"], 1, &[]),
            Err(SweepError::SameAxis { .. })
        ));
        assert!(matches!(
            grid(&["negatives=4,4"], 1, &[]),
            Err(SweepError::SameName { .. })
        ));
        assert!(grid(&["negativ=4"], 1, &[]).is_err());
    }

    #[test]
    fn seeds_may_be_an_axis_and_threads_may_be_given() {
        let grid = grid(&["seed=3,9"], 1, &["threads=2", "run.baselines=true"]).unwrap();
        let names: Vec<&str> = grid.points.iter().map(|point| &*point.name).collect();
        assert_eq!(names, ["seed-3", "seed-9"]);
        assert_eq!((grid.points[1].seed, grid.jobs), (9, 2));
        assert!(grid.points[0].config.run.baselines);
    }
}
