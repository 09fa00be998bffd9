//! What the runs of a sweep say together: accuracy against K or batch size, and over alpha and temperature.

use std::collections::BTreeSet;

use super::Run;
use super::chart::{Axis, HeatMap, Line, LineChart, Scale, Style, significant, style};
use super::figure::Figure;
use super::groups::{Group, Spread, group, spread};

/// An accuracy of a run in percent.
type Accuracy = fn(&Run) -> Option<f64>;

const ACCURACIES: [(&str, &str, Accuracy); 2] = [
    ("knn", "kNN top-1", Run::knn_top1),
    ("linear", "Linear top-1", Run::linear_top1),
];

/// Heat maps of settings that the two axes do not show, one each; more would not be looked at.
const MOST_HEAT_MAPS: usize = 4;

fn is_simclr(run: &Run) -> bool {
    run.settings.word("method.name") == Some("simclr")
}

/// All figures that the settings of the runs give reason for.
pub(crate) fn figures(runs: &[Run]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let simclr: Vec<&Run> = runs.iter().filter(|run| is_simclr(run)).collect();
    let batches = against_batch_size(&simclr);
    // SimCLR's K is twice its batch size: among such runs alone the same chart would be there twice.
    if batches.is_empty() || simclr.len() < runs.len() {
        figures.extend(against_negatives(runs));
    }
    figures.extend(batches);
    figures.extend(heat_maps(runs));
    figures
}

/// The paper's figure: accuracy against the number of negatives, a line for each rule.
fn against_negatives(runs: &[Run]) -> Vec<Figure> {
    let lines = group(runs, &|run, setting| {
        setting == "method.negative_count"
            || (is_simclr(run) && setting == "data.loader.batch_size")
    });
    let axis = "negatives per query, K (log scale)";
    accuracy_charts(
        "negatives",
        "the number of negatives",
        axis,
        &lines,
        &|run| run.negative_count(),
    )
}

fn against_batch_size(runs: &[&Run]) -> Vec<Figure> {
    let lines = group(runs.iter().copied(), &|_, setting| {
        matches!(setting, "data.loader.batch_size" | "method.negative_count")
    });
    let axis = "batch size, images (log scale)";
    accuracy_charts(
        "batch-size",
        "the batch size of SimCLR",
        axis,
        &lines,
        &|run| run.batch_size(),
    )
}

/// A chart for each accuracy; none if `place` takes fewer than two values.
fn accuracy_charts(
    stem: &str,
    of_what: &str,
    axis: &str,
    groups: &[Group<'_>],
    place: &dyn Fn(&Run) -> Option<u64>,
) -> Vec<Figure> {
    let places: BTreeSet<u64> = groups
        .iter()
        .flat_map(|group| &group.runs)
        .filter_map(|run| place(run))
        .collect();
    if places.len() < 2 {
        return Vec::new();
    }
    let charts = ACCURACIES.iter().filter_map(|(name, title, accuracy)| {
        let lines: Vec<Line> = (groups.iter().take(Style::COUNT).enumerate())
            .map(|(index, group)| accuracy_line(group, index, &places, place, *accuracy))
            .filter(|line| !line.points.is_empty())
            .collect();
        if lines.is_empty() {
            return None;
        }
        let x = places.iter().map(|&place| place as f64).collect::<Vec<_>>();
        let y = lines.iter().flat_map(|line| {
            let band = line.band.iter().flat_map(|&[_, low, high]| [low, high]);
            line.points.iter().map(|point| point[1]).chain(band)
        });
        let y = Scale::linear(y.collect::<Vec<_>>().into_iter());
        let chart = LineChart {
            title: format!("{title} against {of_what}"),
            x: Axis { title: axis.to_owned(), scale: Scale::logarithmic(&x) },
            y: Axis { title: format!("{} (%)", title.to_lowercase().replace("knn", "kNN")), scale: y },
            lines,
            levels: Vec::new(),
        };
        let mut caption = "Mean over seeds; the band is one sample standard deviation to each side, where there are two \
                           seeds or more."
            .to_owned();
        if groups.len() > Style::COUNT {
            let (shown, all) = (Style::COUNT, groups.len());
            caption.push_str(&format!(" The first {shown} of {all} lines are shown."));
        }
        Some(Figure::chart(&format!("{stem}-{name}"), caption, chart.draw()))
    });
    charts.collect()
}

fn accuracy_line(
    group: &Group<'_>,
    index: usize,
    places: &BTreeSet<u64>,
    place: &dyn Fn(&Run) -> Option<u64>,
    accuracy: Accuracy,
) -> Line {
    let at = |wanted: u64| -> Option<Spread> {
        let runs = group.runs.iter().filter(|run| place(run) == Some(wanted));
        spread(runs.map(|run| accuracy(run)))
    };
    let spreads: Vec<(f64, Spread)> = (places.iter())
        .filter_map(|&place| Some((place as f64, at(place)?)))
        .collect();
    Line {
        name: group.label.clone(),
        style: style(index),
        points: spreads
            .iter()
            .map(|(x, spread)| [*x, spread.mean])
            .collect(),
        band: (spreads.iter())
            .map(
                |(
                    x,
                    Spread {
                        mean, deviation, ..
                    },
                )| {
                    let deviation = deviation.unwrap_or(0.0);
                    [*x, mean - deviation, mean + deviation]
                },
            )
            .collect(),
        marked: true,
    }
}

/// Maps of accuracy and gradient scale over alpha and temperature, where both vary and nothing else does.
fn heat_maps(runs: &[Run]) -> Vec<Figure> {
    let groups = group(runs, &|_, setting| {
        matches!(setting, "loss.alpha" | "loss.temperature")
    });
    let groups: Vec<&Group<'_>> = groups.iter().filter(|group| varies_twice(group)).collect();
    let mut figures = Vec::new();
    for (number, group) in groups.iter().take(MOST_HEAT_MAPS).enumerate() {
        let number = if groups.len() > 1 {
            format!("-{}", number + 1)
        } else {
            String::new()
        };
        let of_all = match groups.len() {
            more if more > MOST_HEAT_MAPS => {
                format!(" The first {MOST_HEAT_MAPS} of {more} such settings have a map.")
            }
            _ => String::new(),
        };
        let caption = format!("{}. Mean over seeds.{of_all}", group.label);
        let accuracy = heat_map(group, "kNN top-1 (%)", 1, Run::knn_top1);
        let scale = heat_map(group, "gradient scale g, last epoch", 3, |run| {
            run.metrics.final_gradient_scale()
        });
        let named = [
            ("alpha-temperature-knn", accuracy),
            ("alpha-temperature-gradient-scale", scale),
        ];
        for (stem, map) in named {
            figures.extend(
                map.map(|map| Figure::chart(&format!("{stem}{number}"), &*caption, map.draw())),
            );
        }
    }
    figures
}

fn temperatures(group: &Group<'_>) -> Vec<f64> {
    sorted(group.runs.iter().filter_map(|run| run.temperature()))
}

fn alphas(group: &Group<'_>) -> Vec<f64> {
    sorted(group.runs.iter().filter_map(|run| run.alpha_value()))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

fn varies_twice(group: &Group<'_>) -> bool {
    temperatures(group).len() > 1 && alphas(group).len() > 1
}

/// A map of a value of runs; `None` if no run has it.
fn heat_map(group: &Group<'_>, what: &str, decimals: usize, value: Accuracy) -> Option<HeatMap> {
    let (mut alphas, temperatures) = (alphas(group), temperatures(group));
    // The largest on top, as on an axis.
    alphas.reverse();
    let cell = |alpha: f64, temperature: f64| -> Option<f64> {
        let runs = (group.runs.iter()).filter(|run| {
            run.alpha_value() == Some(alpha) && run.temperature() == Some(temperature)
        });
        spread(runs.map(|run| value(run))).map(|spread| spread.mean)
    };
    let values: Vec<Vec<Option<f64>>> = (alphas.iter())
        .map(|&alpha| {
            temperatures
                .iter()
                .map(|&temperature| cell(alpha, temperature))
                .collect()
        })
        .collect();
    let all = || values.iter().flatten().flatten().copied();
    let (low, high) = (
        all().fold(f64::INFINITY, f64::min),
        all().fold(f64::NEG_INFINITY, f64::max),
    );
    if low > high {
        return None;
    }
    let text = |value: f64| format!("{value:.decimals$}");
    let row_name = |alpha: f64| {
        let is_infonce = (group.runs.iter()).any(|run| {
            run.alpha_value() == Some(alpha) && run.rule().as_deref() == Some("InfoNCE")
        });
        match alpha {
            alpha if alpha.is_infinite() => "∞ (DCL)".to_owned(),
            alpha if is_infonce => format!("{} (InfoNCE)", significant(alpha, 6)),
            alpha => significant(alpha, 6),
        }
    };
    Some(HeatMap {
        title: format!("{} over α and temperature", capital(what)),
        row_title: "α".to_owned(),
        column_title: "temperature τ".to_owned(),
        rows: alphas.iter().map(|&alpha| row_name(alpha)).collect(),
        columns: temperatures
            .iter()
            .map(|&value| significant(value, 4))
            .collect(),
        texts: (values.iter())
            .map(|row| {
                row.iter()
                    .map(|value| value.map_or_else(String::new, text))
                    .collect()
            })
            .collect(),
        values,
        range: [low, high],
        shade_title: what.to_owned(),
        shade_labels: [text(low), text(high)],
    })
}

/// With a capital letter, unless it is a name that begins with a small one.
fn capital(what: &str) -> String {
    match what.strip_prefix('g') {
        Some(rest) => format!("G{rest}"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::run;
    use super::*;

    fn stems(figures: &[Figure]) -> Vec<&str> {
        figures.iter().map(|figure| &*figure.stem).collect()
    }

    #[test]
    fn a_line_is_the_mean_with_a_band_of_one_deviation() {
        let runs = [
            run("256.0", 4, 0.2, 0, [40.0, 50.0]),
            run("256.0", 4, 0.2, 1, [44.0, 50.0]),
            run("256.0", 16, 0.2, 0, [48.0, 50.0]),
        ];
        let group = &group(&runs, &|_, setting| setting == "method.negative_count")[0];
        let places = BTreeSet::from([4, 16]);
        let line = accuracy_line(
            group,
            0,
            &places,
            &|run| run.negative_count(),
            Run::knn_top1,
        );
        assert_eq!(line.points, [[4.0, 42.0], [16.0, 48.0]]);
        let deviation = 8f64.sqrt();
        assert_eq!(
            line.band,
            [
                [4.0, 42.0 - deviation, 42.0 + deviation],
                [16.0, 48.0, 48.0]
            ]
        );
    }

    #[test]
    fn figures_appear_with_what_varies() {
        let one = [run("256.0", 4, 0.2, 0, [40.0, 50.0])];
        assert!(figures(&one).is_empty());
        let k = [
            run("256.0", 4, 0.2, 0, [40.0, 50.0]),
            run("\"infonce\"", 16, 0.2, 0, [41.0, 51.0]),
        ];
        assert_eq!(stems(&figures(&k)), ["negatives-knn", "negatives-linear"]);
        let mut grid = Vec::new();
        for (alpha, temperature) in [
            ("256.0", 0.1),
            ("256.0", 0.2),
            ("\"infonce\"", 0.1),
            ("\"infonce\"", 0.2),
        ] {
            grid.push(run(alpha, 16, temperature, 0, [10.0 * temperature, 1.0]));
        }
        let maps = figures(&grid);
        assert_eq!(
            stems(&maps),
            ["alpha-temperature-knn", "alpha-temperature-gradient-scale"]
        );
        let svg = maps[0].drawing.inline();
        assert!(
            svg.contains(">16 (InfoNCE)</text>") && svg.contains(">2.0</text>"),
            "{svg}"
        );
        assert!(maps[1].drawing.inline().contains(">0.062</text>"));
    }

    #[test]
    fn lines_beyond_the_styles_are_left_out_with_a_word() {
        let runs: Vec<Run> = (0..60)
            .map(|index| {
                run(
                    &format!("{}.0", 2 + index / 2),
                    4 + index % 2,
                    0.2,
                    0,
                    [40.0, 50.0],
                )
            })
            .collect();
        let figure = &figures(&runs)[0];
        assert!(
            figure
                .caption
                .ends_with("The first 28 of 30 lines are shown."),
            "{}",
            figure.caption
        );
    }

    #[test]
    fn batch_sizes_of_simclr_have_their_own_chart() {
        let simclr = |batch: u64| {
            let mut run = run("\"infonce\"", 1, 0.1, 0, [batch as f64 / 10.0, 1.0]);
            let text = run
                .settings
                .text
                .replace("simo", "simclr")
                .replace("128", &batch.to_string());
            run.settings = super::super::settings::Settings::parse(run.path(), &text).unwrap();
            run
        };
        let runs = [simclr(64), simclr(256)];
        assert_eq!(runs[1].negative_count(), Some(510));
        assert_eq!(
            stems(&figures(&runs)),
            ["batch-size-knn", "batch-size-linear"]
        );
    }
}
