//! What happened during training: every statistic of the steps as a curve.

use super::chart::{Axis, Level, Line, LineChart, Scale, Style, style};
use super::figure::Figure;
use super::groups::Group;
use super::series::binned;
use super::topics::{Quantity, Topic, topics};

/// Lines that a chart of curves can hold and still be read.
const MOST_LINES: usize = 12;

/// Groups up to which bands are drawn; more of them cover each other.
const MOST_BANDS: usize = 3;

/// All curves that the runs have values for; groups of runs that differ in their seed alone are one line, their mean.
pub(crate) fn curves(groups: &[Group<'_>]) -> Vec<Figure> {
    let shown = best(groups);
    let mut figures = Vec::new();
    for topic in topics(shown.len() <= MOST_BANDS) {
        if let [group] = shown[..] {
            figures.extend(chart(&topic, None, &[group]));
        } else {
            figures.extend(
                (0..topic.quantities.len()).filter_map(|which| chart(&topic, Some(which), &shown)),
            );
        }
    }
    figures.extend(knn_chart(&shown));
    let of_all = match groups.len() > shown.len() {
        true => format!(
            " Of {} groups of runs the {} with the best linear top-1 are shown.",
            groups.len(),
            shown.len()
        ),
        false => String::new(),
    };
    for figure in &mut figures {
        figure.caption.push_str(&of_all);
    }
    figures
}

/// As many groups as a chart can hold, those with the best linear top-1, in their own order.
fn best<'a, 'b>(groups: &'b [Group<'a>]) -> Vec<&'b Group<'a>> {
    let accuracy = |group: &Group<'_>| {
        let found = group.runs.iter().filter_map(|run| run.linear_top1());
        found.fold(f64::NEG_INFINITY, f64::max)
    };
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|&a, &b| accuracy(&groups[b]).total_cmp(&accuracy(&groups[a])));
    order.truncate(MOST_LINES);
    order.sort_unstable();
    order.into_iter().map(|index| &groups[index]).collect()
}

/// Value and deviation of a quantity over the steps of a group.
fn curve(quantity: &Quantity, group: &Group<'_>) -> Vec<(f64, [f64; 2])> {
    let steps = (group.runs.iter()).flat_map(|run| &run.metrics.steps);
    let points: Vec<_> = steps
        .map(|step| {
            let deviation = quantity.deviation.map_or(0.0, |deviation| deviation(step));
            (step.step as f64, [(quantity.value)(step), deviation])
        })
        .filter(|(_, [value, _])| !quantity.is_sparse || value.is_finite())
        .collect();
    binned(&points)
}

/// A chart of one quantity (`which`) or of all of a topic; `None` if no run has a value.
fn chart(topic: &Topic, which: Option<usize>, groups: &[&Group<'_>]) -> Option<Figure> {
    let quantities = match which {
        Some(which) => &topic.quantities[which..=which],
        None => &topic.quantities[..],
    };
    let mut lines = Vec::new();
    for (place, group) in groups.iter().enumerate() {
        for (number, quantity) in quantities.iter().enumerate() {
            let points = curve(quantity, group);
            let band = points.iter().filter(|_| quantity.deviation.is_some());
            lines.push(Line {
                name: if groups.len() == 1 {
                    quantity.name.to_owned()
                } else {
                    group.label.clone()
                },
                style: style(place.max(number)),
                band: band
                    .map(|&(x, [value, deviation])| [x, value - deviation, value + deviation])
                    .collect(),
                points: points.iter().map(|&(x, [value, _])| [x, value]).collect(),
                marked: false,
            });
        }
    }
    lines.retain(|line| line.points.iter().any(|point| point[1].is_finite()));
    if lines.is_empty() {
        return None;
    }
    if groups.len() > 1 && lines.iter().all(|line| line.points == lines[0].points) {
        // As the learning rate often is: further lines would hide the first.
        lines.truncate(1);
        lines[0].name = "the same in all runs".to_owned();
    }
    let title = match which {
        Some(which) if topic.quantities.len() > 1 => {
            capitalized(topic.quantities[which].name) + topic.of_what
        }
        _ => topic.title.to_owned(),
    };
    let stem = match which {
        Some(which) if topic.quantities.len() > 1 => topic.quantities[which]
            .name
            .replace("'s", "")
            .replace(' ', "-"),
        _ => topic.stem.to_owned(),
    };
    let levels = if topic.stem == "loss" {
        chance_levels(groups)
    } else {
        Vec::new()
    };
    Some(over_steps(
        last_step(groups),
        &stem,
        title,
        topic.axis,
        topic.caption,
        lines,
        levels,
    ))
}

fn capitalized(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// The loss of chance of every group, each level once.
fn chance_levels(groups: &[&Group<'_>]) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for value in groups
        .iter()
        .filter_map(|group| group.runs[0].chance_loss())
    {
        if levels
            .iter()
            .all(|level| (level.value - value).abs() > 1e-9)
        {
            let name = levels.is_empty().then(|| "chance".to_owned());
            let style = Style::REFERENCE;
            levels.push(Level { name, style, value });
        }
    }
    levels
}

/// Steps that the longest run has done.
fn last_step(groups: &[&Group<'_>]) -> u64 {
    let runs = groups.iter().flat_map(|group| &group.runs);
    let steps = runs.filter_map(|run| Some(run.metrics.steps.last()?.step + 1));
    steps.max().unwrap_or(0)
}

fn over_steps(
    last_step: u64,
    stem: &str,
    title: String,
    axis: &str,
    caption: &str,
    lines: Vec<Line>,
    levels: Vec<Level>,
) -> Figure {
    let values = lines.iter().flat_map(|line| {
        let band = line.band.iter().flat_map(|&[_, low, high]| [low, high]);
        line.points.iter().map(|point| point[1]).chain(band)
    });
    let values: Vec<f64> = values
        .chain(levels.iter().map(|level| level.value))
        .collect();
    let chart = LineChart {
        title,
        x: Axis {
            title: "training step".to_owned(),
            scale: Scale::from_zero(last_step as f64),
        },
        y: Axis {
            title: axis.to_owned(),
            scale: Scale::linear(values.into_iter()),
        },
        lines,
        levels,
    };
    Figure::chart(stem, caption, chart.draw())
}

/// Nearest-neighbour accuracy measured during training, where it was.
fn knn_chart(groups: &[&Group<'_>]) -> Option<Figure> {
    let lines = groups.iter().enumerate().map(|(place, group)| {
        let records = group.runs.iter().flat_map(|run| &run.metrics.knn);
        let points: Vec<_> = records
            .map(|record| (record.step as f64, [record.knn_top1]))
            .collect();
        Line {
            name: group.label.clone(),
            style: style(place),
            points: binned(&points)
                .iter()
                .map(|&(x, [value])| [x, value])
                .collect(),
            band: Vec::new(),
            marked: true,
        }
    });
    let lines: Vec<Line> = lines.filter(|line| !line.points.is_empty()).collect();
    let caption = "Measured during training, on fewer images than the figures of the tables.";
    let title = "Nearest-neighbour accuracy during training".to_owned();
    (!lines.is_empty()).then(|| {
        over_steps(
            last_step(groups),
            "knn-online",
            title,
            "kNN top-1 (%)",
            caption,
            lines,
            Vec::new(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::groups::by_seed;
    use super::super::run::tests::run;
    use super::*;

    fn stems(figures: &[Figure]) -> Vec<&str> {
        figures.iter().map(|figure| &*figure.stem).collect()
    }

    #[test]
    fn only_what_was_measured_has_a_chart() {
        let runs = [
            run("256.0", 16, 0.2, 0, [1.0; 2]),
            run("256.0", 4, 0.2, 0, [1.0; 2]),
        ];
        let figures = curves(&by_seed(&runs));
        assert_eq!(stems(&figures), ["loss", "gradient-scale"]);
        // Their losses are equal, their gradient scales are not.
        let [loss, scale] = [0, 1].map(|figure: usize| figures[figure].drawing.inline());
        for (svg, text) in [
            (&loss, "the same in all runs"),
            (&loss, "chance"),
            (&scale, "K=16"),
            (&scale, "K=4"),
        ] {
            assert!(svg.contains(&format!(">{text}</text>")), "{text} in {svg}");
        }
        assert!(curves(&[]).is_empty());
    }

    #[test]
    fn a_line_is_the_mean_over_seeds() {
        let runs = [
            run("256.0", 16, 0.2, 0, [1.0; 2]),
            run("256.0", 16, 0.2, 1, [1.0; 2]),
        ];
        let groups = by_seed(&runs);
        let points = curve(&topics(true)[0].quantities[0], &groups[0]);
        let losses: Vec<f64> = points.iter().map(|(_, [loss, _])| *loss).collect();
        assert_eq!(losses, [4.5, 3.5, 2.5, 1.5]);
    }

    #[test]
    fn what_is_measured_now_and_then_is_one_line_and_what_is_lost_is_a_gap() {
        let mut runs = [run("256.0", 16, 0.2, 0, [1.0; 2])];
        for (step, rank) in runs[0]
            .metrics
            .steps
            .iter_mut()
            .zip([9.0, f64::NAN, f64::NAN, 6.0])
        {
            step.effective_rank = rank;
            step.loss = rank;
        }
        let groups = by_seed(&runs);
        let values = |stem: &str| -> Vec<f64> {
            let topics = topics(true);
            let topic = topics.iter().find(|topic| topic.stem == stem).unwrap();
            let points = curve(&topic.quantities[0], &groups[0]);
            points.iter().map(|(_, [value, _])| *value).collect()
        };
        assert_eq!(values("effective-rank"), [9.0, 6.0]);
        let loss = values("loss");
        assert!(
            loss.len() == 4 && loss[1].is_nan() && loss[2].is_nan(),
            "{loss:?}"
        );
    }

    #[test]
    fn of_many_groups_the_best_are_shown_and_the_caption_says_so() {
        let runs: Vec<_> = (1..=20)
            .map(|k| run("256.0", k, 0.2, 0, [1.0, k as f64]))
            .collect();
        let groups = by_seed(&runs);
        let labels: Vec<&str> = best(&groups).iter().map(|group| &*group.label).collect();
        assert_eq!((labels.len(), labels[0], labels[11]), (12, "K=9", "K=20"));
        assert!(
            curves(&groups)[0]
                .caption
                .ends_with("Of 20 groups of runs the 12 with the best linear top-1 are shown.")
        );
    }
}
