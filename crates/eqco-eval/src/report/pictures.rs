//! What one run's representation looks like: neighbours, a map, and which classes it takes for which.

use super::chart::{BarChart, Class, HeatMap, Scatter, Style, fixed, grouped, style};
use super::embedding_map::{PERPLEXITY, embedding_map};
use super::figure::Figure;
use super::html::table;
use super::neighbours::neighbour_figure;
use super::{ReportError, Run};
use crate::accuracy::{Accuracy, confusion};
use crate::{EvalError, EvalImages, FeaturePair, Features, KnnConfig, knn_predictions};

/// Points of the map.
const MOST_POINTS: usize = 2_000;
/// Classes up to which every one has a bar and a row of the confusion matrix.
const MOST_CLASSES: usize = 40;

/// Pictures of the representation of one run.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// What was looked at, in a sentence.
    pub(crate) introduction: String,
    pub(crate) figures: Vec<Figure>,
    /// A table in HTML where there are too many classes for a matrix.
    pub(crate) confusions: Option<String>,
}

/// The run whose representation is worth a look: the one with the best linear top-1, then kNN top-1, among those that have
/// a checkpoint; the first of equals. `None` if no run has a checkpoint.
pub fn choose_for_pictures(runs: &[Run]) -> Option<&Run> {
    let has_checkpoint = |run: &&Run| crate::find_checkpoint(run.path()).is_ok();
    let value = |run: &Run| {
        let [linear, knn] = [run.linear_top1(), run.knn_top1()];
        [linear, knn].map(|top1| top1.unwrap_or(f64::NEG_INFINITY))
    };
    runs.iter().filter(has_checkpoint).reduce(|best, run| {
        let is_better = value(run).partial_cmp(&value(best)) == Some(std::cmp::Ordering::Greater);
        if is_better { run } else { best }
    })
}

impl Pictures {
    /// Makes the pictures from the features of `images` by the encoder of `run`. Neighbours vote as in the run's own
    /// evaluation, or all training images if there are fewer.
    ///
    /// # Errors
    /// Those of reading the images again, and of [`knn_predictions`].
    pub fn new(
        run: &Run,
        images: &EvalImages,
        features: &FeaturePair,
    ) -> Result<Self, ReportError> {
        let (train, test) = (features.train(), features.test());
        let mut config = run.settings.knn();
        config.neighbours = config.neighbours.min(train.count());
        let predictions = knn_predictions(features, &config)?;
        let accuracy = Accuracy::of(&predictions, test.labels(), test.class_count());
        let names = images.class_names();
        let mut figures = vec![
            neighbour_figure(images, features)?,
            map_figure(test, names)?,
        ];
        figures.push(accuracy_figure(&accuracy, names, &config));
        let counts = confusion(&predictions, test.labels(), test.class_count());
        let mut confusions = None;
        if names.len() <= MOST_CLASSES {
            figures.push(confusion_figure(&counts, names));
        } else {
            confusions = Some(confusion_table(&counts, names));
        }
        Ok(Self {
            introduction: format!(
                "Run {}: {} training and {} test images of {}, {} numbers per image. By its {} nearest neighbours \
                 (temperature {}) {} % of the test images are classified correctly.",
                run.name(),
                grouped(train.count() as u64),
                grouped(test.count() as u64),
                test.origin().data,
                test.dim(),
                config.neighbours,
                config.temperature,
                fixed(accuracy.top1, 2),
            ),
            figures,
            confusions,
        })
    }
}

/// The map of test images, at most 2,000 at equal distances in the order of the data set.
fn map_figure(test: &Features, names: &[String]) -> Result<Figure, EvalError> {
    let count = test.count().min(MOST_POINTS);
    let rows: Vec<usize> = (0..count)
        .map(|place| place * test.count() / count)
        .collect();
    let points = embedding_map(test, &rows)?;
    let mut classes: Vec<Class> = (names.iter().enumerate())
        .map(|(label, name)| {
            let (name, points) = (name.clone(), Vec::new());
            Class {
                name,
                style: style(label),
                points,
            }
        })
        .collect();
    for (&row, point) in rows.iter().zip(points) {
        classes[test.labels()[row] as usize].points.push(point);
    }
    let classes = with_colours(classes);
    let scatter = Scatter {
        title: "Map of test images (t-SNE)".to_owned(),
        classes,
    };
    let caption = format!(
        "Exact t-SNE of {} test images by cosine distance, perplexity {PERPLEXITY}, from the first two principal \
         components; nothing in it is random. Axes have no meaning.",
        grouped(count as u64)
    );
    Ok(Figure::chart("map", caption, scatter.draw()))
}

/// Classes beyond the number of styles share one, in grey: those with the fewest points.
fn with_colours(mut classes: Vec<Class>) -> Vec<Class> {
    classes.retain(|class| !class.points.is_empty());
    if classes.len() > Style::COUNT {
        classes.sort_by_key(|class| std::cmp::Reverse(class.points.len()));
        let rest = classes.split_off(Style::COUNT - 1);
        classes.push(Class {
            name: format!("{} other classes", rest.len()),
            style: Style::REFERENCE,
            points: rest.into_iter().flat_map(|class| class.points).collect(),
        });
    }
    for (place, class) in classes.iter_mut().enumerate() {
        if class.style != Style::REFERENCE {
            class.style = style(place);
        }
    }
    classes
}

fn accuracy_figure(accuracy: &Accuracy, names: &[String], config: &KnnConfig) -> Figure {
    let mut bars: Vec<(String, Option<f64>)> = (names.iter().cloned())
        .zip(accuracy.per_class_top1.iter().copied())
        .collect();
    let mut caption = format!(
        "{} nearest neighbours, temperature {}.",
        config.neighbours, config.temperature
    );
    if bars.len() > MOST_CLASSES {
        let half = MOST_CLASSES / 2;
        bars.retain(|(_, value)| value.is_some());
        bars.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal));
        let hidden = bars.len().saturating_sub(2 * half);
        bars.drain(half.min(bars.len())..(half + hidden).min(bars.len()));
        caption.push_str(&format!(
            " The {half} best and the {half} worst classes; {hidden} lie between them."
        ));
    }
    let chart = BarChart {
        title: "Accuracy of each class (kNN)".to_owned(),
        axis: "test images classified correctly (%)".to_owned(),
        bars,
        level: (
            format!("all classes: {} %", fixed(accuracy.top1, 1)),
            accuracy.top1,
        ),
    };
    Figure::chart("class-accuracy", caption, chart.draw())
}

fn confusion_figure(counts: &[Vec<usize>], names: &[String]) -> Figure {
    let share = |row: &[usize], count: usize| {
        let all: usize = row.iter().sum();
        (all > 0).then(|| 100.0 * count as f64 / all as f64)
    };
    let values: Vec<Vec<Option<f64>>> = (counts.iter())
        .map(|row| row.iter().map(|&count| share(row, count)).collect())
        .collect();
    let most = (values.iter().flatten().flatten()).fold(0.0, |most: f64, value| most.max(*value));
    let text = |value: &Option<f64>| value.map_or_else(String::new, |value| fixed(value, 0));
    let map = HeatMap {
        title: "Confusion matrix (kNN)".to_owned(),
        row_title: "class of the image".to_owned(),
        column_title: "predicted class".to_owned(),
        rows: names.to_vec(),
        columns: names.to_vec(),
        texts: values
            .iter()
            .map(|row| row.iter().map(text).collect())
            .collect(),
        values,
        range: [0.0, most],
        shade_title: "images of the row's class (%)".to_owned(),
        shade_labels: ["0".to_owned(), fixed(most, 0)],
    };
    Figure::chart(
        "confusion",
        "Percent of the images of each class; every row adds up to 100.",
        map.draw(),
    )
}

/// The most frequent confusions, where a matrix would be too large.
fn confusion_table(counts: &[Vec<usize>], names: &[String]) -> String {
    let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
    for (class, row) in counts.iter().enumerate() {
        let wrong = row
            .iter()
            .enumerate()
            .filter(|(other, count)| *other != class && **count > 0);
        pairs.extend(wrong.map(|(other, &count)| (count, class, other)));
    }
    pairs.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let rows: Vec<Vec<String>> = (pairs.iter().take(20))
        .map(|&(count, class, other)| {
            vec![
                names[class].clone(),
                names[other].clone(),
                grouped(count as u64),
            ]
        })
        .collect();
    table(&["class of the image", "predicted class", "images"], &rows)
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::run;
    use super::*;
    use crate::images::tests::images;

    #[test]
    fn the_best_run_with_a_checkpoint_is_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let accuracies = [
            ("a", 40.0, 60.0, true),
            ("b", 50.0, 60.0, true),
            ("c", 50.0, 60.0, true),
            ("d", 90.0, 90.0, false),
        ];
        let runs = accuracies.map(|(name, knn, linear, has_checkpoint)| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("metrics.jsonl"), "").unwrap();
            let json = format!("{{\"pretrained\":{{\"knn\":{{\"top1\":{knn}}},\"linear_probe\":{{\"top1\":{linear}}}}}}}");
            std::fs::write(path.join("evaluation.json"), json).unwrap();
            if has_checkpoint {
                std::fs::write(path.join("a.safetensors"), "").unwrap();
            }
            Run::read(&path).unwrap()
        });
        assert_eq!(choose_for_pictures(&runs).unwrap().name(), "b");
        assert!(choose_for_pictures(&runs[3..]).is_none());
    }

    #[test]
    fn four_pictures_of_few_classes() {
        let images = images(30, 12, 8);
        let pixels = crate::raw_pixels(&images).unwrap();
        let pictures =
            Pictures::new(&run("256.0", 16, 0.2, 0, [1.0; 2]), &images, &pixels).unwrap();
        let stems: Vec<&str> = pictures
            .figures
            .iter()
            .map(|figure| &*figure.stem)
            .collect();
        assert_eq!(stems, ["neighbours", "map", "class-accuracy", "confusion"]);
        assert!(
            pictures
                .introduction
                .contains("30 training and 12 test images of in memory"),
            "{}",
            pictures.introduction
        );
        let map = pictures.figures[1].drawing.inline();
        assert_eq!(map.matches("<circle").count(), 12 + 3, "{map}");
    }

    #[test]
    fn many_classes_have_their_extremes_and_a_list() {
        let names: Vec<String> = (0..100).map(|class| format!("<{class}>")).collect();
        let top1 = (0..100).map(|class| Some(f64::from(class))).collect();
        let accuracy = Accuracy {
            top1: 50.0,
            per_class_top1: top1,
        };
        let figure = accuracy_figure(&accuracy, &names, &KnnConfig::default());
        assert!(
            figure
                .caption
                .ends_with("The 20 best and the 20 worst classes; 60 lie between them."),
            "{}",
            figure.caption
        );
        let svg = figure.drawing.inline();
        assert!(
            svg.contains("&lt;99&gt;") && svg.contains("&lt;19&gt;") && !svg.contains("&lt;20&gt;")
        );
        let mut counts = vec![vec![0; 100]; 100];
        (counts[3][4], counts[5][5], counts[7][1]) = (9, 100, 2);
        let list = confusion_table(&counts, &names);
        assert!(list.find("&lt;3&gt;").unwrap() < list.find("&lt;7&gt;").unwrap());
        assert!(!list.contains("&lt;5&gt;"), "{list}");
        let classes = (0..40).map(|class| Class {
            name: class.to_string(),
            style: style(class),
            points: vec![[0.0; 2]],
        });
        let classes = with_colours(classes.collect());
        assert_eq!(
            (classes.len(), &*classes[27].name),
            (28, "13 other classes")
        );
    }
}
