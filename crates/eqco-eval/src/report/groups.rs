//! Runs that differ in their seed alone, and what they say together.

use std::collections::{BTreeMap, BTreeSet};

use super::Run;
use super::chart::{grouped, significant};

/// Settings that change no result: two runs that differ in these alone are repetitions of one.
fn is_irrelevant(setting: &str) -> bool {
    matches!(setting, "seed" | "threads" | "data.loader.workers") || setting.starts_with("run.")
}

/// Settings that a label has its own words for.
const WORDED: [&str; 5] = [
    "method.name",
    "loss.alpha",
    "method.negative_count",
    "data.loader.batch_size",
    "loss.temperature",
];

/// Runs that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Group<'a> {
    /// What tells this group from the others, in words.
    pub(crate) label: String,
    pub(crate) runs: Vec<&'a Run>,
}

/// Groups runs whose settings are equal, apart from the seed and from those that `is_ignored` names, in the order of their
/// first run. Labels differ, and say as little as is needed for that.
pub(crate) fn group<'a>(
    runs: impl IntoIterator<Item = &'a Run>,
    is_ignored: &dyn Fn(&Run, &str) -> bool,
) -> Vec<Group<'a>> {
    let mut keys: Vec<BTreeMap<String, String>> = Vec::new();
    let mut groups: Vec<Group<'a>> = Vec::new();
    for run in runs {
        let mut key: BTreeMap<String, String> = (run.settings.values().iter())
            .filter(|(name, _)| !is_irrelevant(name) && !is_ignored(run, name))
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect();
        if key.is_empty() {
            // Nothing is known about it, in particular not that it repeats another run.
            key.insert(String::new(), run.path().display().to_string());
        }
        if let Some(place) = keys.iter().position(|other| *other == key) {
            groups[place].runs.push(run);
        } else {
            keys.push(key);
            let (label, runs) = (String::new(), vec![run]);
            groups.push(Group { label, runs });
        }
    }
    let labels = labels(&groups, &keys, is_ignored);
    for (group, label) in groups.iter_mut().zip(labels) {
        group.label = label;
    }
    groups
}

/// Groups runs that differ in their seed alone.
pub(crate) fn by_seed<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Vec<Group<'a>> {
    group(runs, &|_, _| false)
}

/// What labels are made of, the most telling first; `None` for what is not known or ignored.
fn parts(run: &Run, is_ignored: &dyn Fn(&Run, &str) -> bool) -> [Option<String>; 5] {
    let parts = [
        run.settings.method().map(str::to_owned),
        run.rule(),
        run.negative_count()
            .map(|count| format!("K={}", grouped(count))),
        run.batch_size()
            .map(|count| format!("batch {}", grouped(count))),
        run.temperature()
            .map(|value| format!("τ={}", significant(value, 4))),
    ];
    let mut named = WORDED.iter().zip(parts);
    std::array::from_fn(|_| {
        let (setting, part) = named.next()?;
        part.filter(|_| !is_ignored(run, setting))
    })
}

fn labels(
    groups: &[Group<'_>],
    keys: &[BTreeMap<String, String>],
    is_ignored: &dyn Fn(&Run, &str) -> bool,
) -> Vec<String> {
    let all: Vec<_> = groups
        .iter()
        .map(|group| parts(group.runs[0], is_ignored))
        .collect();
    let varies = |part: usize| all.iter().any(|parts| parts[part] != all[0][part]);
    let is_told: [bool; 5] =
        std::array::from_fn(|part| groups.len() == 1 && part < 3 || varies(part));
    let mut labels: Vec<Vec<String>> = (all.iter())
        .map(|parts| {
            let told = parts.iter().zip(is_told).filter(|(_, is_told)| *is_told);
            told.filter_map(|(part, _)| part.clone()).collect()
        })
        .collect();
    let is_unique =
        |labels: &[Vec<String>]| labels.iter().collect::<BTreeSet<_>>().len() == labels.len();
    let others: BTreeSet<&String> = keys.iter().flat_map(BTreeMap::keys).collect();
    for setting in others {
        let values: Vec<Option<&String>> = keys.iter().map(|key| key.get(setting)).collect();
        let is_new =
            !WORDED.contains(&&**setting) && values.iter().any(|value| *value != values[0]);
        if is_unique(&labels) || !is_new || setting.is_empty() {
            continue;
        }
        let short = setting
            .rsplit('.')
            .next()
            .unwrap_or(setting)
            .replace('_', " ");
        for (label, value) in labels.iter_mut().zip(values) {
            label.extend(value.map(|value| format!("{short} {}", value.trim_matches('"'))));
        }
    }
    let mut labels: Vec<String> = labels.iter().map(|label| label.join(", ")).collect();
    if labels.iter().any(String::is_empty)
        || labels.iter().collect::<BTreeSet<_>>().len() < labels.len()
    {
        for (label, group) in labels.iter_mut().zip(groups) {
            let gap = if label.is_empty() { "" } else { ", " };
            *label = format!("{label}{gap}{}", group.runs[0].name());
        }
    }
    labels
}

/// Mean and sample deviation of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    /// Division by n - 1; `None` for a single value.
    pub(crate) deviation: Option<f64>,
    pub(crate) count: usize,
}

/// The spread of the values that are there; `None` if there are none.
pub(crate) fn spread(values: impl Iterator<Item = Option<f64>>) -> Option<Spread> {
    let values: Vec<f64> = values.flatten().filter(|value| value.is_finite()).collect();
    let count = values.len();
    if count == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(Spread {
        mean,
        deviation: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
        count,
    })
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::run;
    use super::*;

    #[test]
    fn mean_and_sample_deviation_by_hand() {
        let found =
            spread([Some(80.0), None, Some(82.0), Some(87.0), Some(f64::NAN)].into_iter()).unwrap();
        assert_eq!((found.mean, found.count), (83.0, 3));
        // (9 + 1 + 16) / 2 = 13
        assert!((found.deviation.unwrap() - 13f64.sqrt()).abs() < 1e-12);
        assert_eq!(spread([Some(4.0)].into_iter()).unwrap().deviation, None);
        assert_eq!(spread([None].into_iter()), None);
    }

    #[test]
    fn repetitions_are_one_group_and_labels_say_what_differs() {
        let runs = [
            run("256.0", 16, 0.2, 0, [1.0; 2]),
            run("\"infonce\"", 16, 0.2, 0, [1.0; 2]),
            run("256.0", 16, 0.2, 1, [1.0; 2]),
            run("256.0", 4, 0.2, 1, [1.0; 2]),
        ];
        let groups = by_seed(&runs);
        let labels: Vec<&str> = groups.iter().map(|group| &*group.label).collect();
        assert_eq!(
            labels,
            ["EqCo α=256, K=16", "InfoNCE, K=16", "EqCo α=256, K=4"]
        );
        assert_eq!(groups[0].runs.len(), 2);
        let lines = group(&runs, &|_, setting| setting == "method.negative_count");
        let labels: Vec<&str> = lines.iter().map(|group| &*group.label).collect();
        assert_eq!(labels, ["EqCo α=256", "InfoNCE"]);
        assert_eq!(by_seed(&runs[..1])[0].label, "SiMo, EqCo α=256, K=16");
    }

    #[test]
    fn other_settings_enter_a_label_only_where_they_must() {
        let mut other = run("256.0", 16, 0.2, 0, [1.0; 2]);
        let text = other
            .settings
            .text
            .replace("seed = 0", "seed = 0\nprecision = \"bf16\"");
        other.settings = super::super::settings::Settings::parse(other.path(), &text).unwrap();
        let runs = [
            run("256.0", 16, 0.2, 0, [1.0; 2]),
            other,
            run("256.0", 4, 0.2, 0, [1.0; 2]),
        ];
        let groups = by_seed(&runs);
        let labels: Vec<&str> = groups.iter().map(|group| &*group.label).collect();
        assert_eq!(labels, ["K=16", "K=16, precision bf16", "K=4"]);
    }
}
