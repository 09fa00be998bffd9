//! The page: which section follows which.

use super::chart::escape;
use super::curves::curves;
use super::figure::Figure;
use super::groups::by_seed;
use super::html::{document, figures, paragraph, section};
use super::provenance::{configurations, machines, protocols};
use super::tables::{baseline_table, group_table, names, run_table};
use super::write::PictureSection;
use super::{Run, sweep};

/// A page with all of its figures.
pub(crate) struct Page {
    pub(crate) html: String,
    pub(crate) figures: Vec<Figure>,
}

impl Page {
    /// Puts the page together. The same runs give the same bytes.
    pub(crate) fn new(runs: &[Run], pictures: &PictureSection) -> Self {
        let groups = by_seed(runs);
        let mut all = Vec::new();
        let mut body = heading(runs);
        let mut tables = run_table(runs);
        if let Some(table) = group_table(&groups) {
            tables.push_str("<h3>Means over seeds</h3>\n");
            tables.push_str(&paragraph(
                "Runs that differ in their seed alone: mean ± sample standard deviation (number of runs).",
            ));
            tables.push_str(&table);
        }
        if let Some(table) = baseline_table(&groups) {
            tables.push_str("<h3>Baselines</h3>\n");
            tables.push_str(&paragraph(
                "The same measurements of the encoder before training and of the pixels themselves, top-1 with mean ± sample \
                 standard deviation (number of runs).",
            ));
            tables.push_str(&table);
        }
        tables.push_str(&notes(runs));
        body.push_str(&section("runs", "Runs", &tables));
        for (id, title, found) in [
            ("sweep", "Accuracy over settings", sweep::figures(runs)),
            ("curves", "Training", curves(&groups)),
        ] {
            if !found.is_empty() {
                body.push_str(&section(id, title, &figures(&found)));
                all.extend(found);
            }
        }
        body.push_str(&section(
            "pictures",
            "What the representation looks like",
            &picture_section(pictures),
        ));
        if let PictureSection::Made(pictures) = pictures {
            all.extend(pictures.figures.iter().cloned());
        }
        let provenance = [
            "<h3>Protocols</h3>\n".to_owned(),
            protocols(runs),
            "<h3>Hardware and time</h3>\n".to_owned(),
            machines(runs),
            "<h3>Configurations</h3>\n".to_owned(),
            configurations(runs),
        ];
        body.push_str(&section(
            "provenance",
            "Where the figures come from",
            &provenance.concat(),
        ));
        Self {
            html: document(&title(runs), &body),
            figures: all,
        }
    }
}

fn title(runs: &[Run]) -> String {
    match runs {
        [run] => format!("Run {}", run.name()),
        runs => format!("{} runs", runs.len()),
    }
}

fn heading(runs: &[Run]) -> String {
    let text = format!(
        "Contrastive pre-training with the rule of EqCo (arXiv 2010.01929). Accuracies are top-1 in percent on the test part; \
         the protocol of each stands at the end. Written by eqco-eval {}.",
        env!("CARGO_PKG_VERSION")
    );
    format!(
        "<h1>{}</h1>\n<p class=\"lead\">{}</p>\n",
        escape(&title(runs)),
        escape(&text)
    )
}

/// What is odd about runs.
fn notes(runs: &[Run]) -> String {
    let note = |(name, run): (String, &Run)| match run.notes() {
        [] => String::new(),
        notes => format!(
            "<p class=\"note\">{}</p>\n",
            escape(&format!("{name}: {}.", notes.join("; ")))
        ),
    };
    names(runs).into_iter().zip(runs).map(note).collect()
}

fn picture_section(pictures: &PictureSection) -> String {
    match pictures {
        PictureSection::Made(pictures) => {
            let mut html = paragraph(&pictures.introduction) + &figures(&pictures.figures);
            if let Some(table) = &pictures.confusions {
                html.push_str("<h3>Most frequent confusions (kNN)</h3>\n");
                html.push_str(table);
            }
            html
        }
        PictureSection::Absent { reason } => format!("<p class=\"note\">{}</p>\n", escape(reason)),
    }
}
