//! `eqco-eval knn`: weighted nearest neighbours.

use anyhow::Result;
use clap::Args;
use eqco_eval::{KnnConfig, ResultTable, knn};

use super::output::{as_json, print};
use super::subjects::SubjectArgs;

/// Flags of `knn`.
#[derive(Args, Debug)]
pub(super) struct KnnArgs {
    #[command(flatten)]
    subjects: SubjectArgs,
    /// Training images that vote (k)
    #[arg(long = "k", value_name = "COUNT", default_value_t = KnnConfig::default().neighbours)]
    neighbours: usize,
    /// Divides the similarities in the votes' weights
    #[arg(long, value_name = "NUMBER", default_value_t = KnnConfig::default().temperature)]
    temperature: f64,
}

pub(super) fn run(arguments: &KnnArgs) -> Result<()> {
    let &KnnArgs {
        neighbours,
        temperature,
        ..
    } = arguments;
    let config = KnnConfig {
        neighbours,
        temperature,
    };
    let opened = arguments.subjects.open()?;
    config.check(opened.train_count())?;
    let subjects = opened.represent()?;
    let mut outcomes = Vec::new();
    for (row, features) in &subjects.features {
        outcomes.push((*row, knn(features, &config)?));
    }
    if arguments.subjects.json {
        let by_key = outcomes.iter().map(|(row, outcome)| (row.key(), outcome));
        return print(&as_json(&subjects.provenance, by_key)?);
    }
    let mut table = ResultTable::new(&["kNN top-1 %"]);
    for (row, outcome) in &outcomes {
        table.add(row.name(), &[outcome.accuracy.top1]);
    }
    let protocol = &outcomes[0].1.protocol;
    print(&format!(
        "{neighbours} nearest neighbours, temperature {temperature}: {}, {} training and {} test \
         images\n\n{table}",
        subjects.data_name, protocol.train.count, protocol.test.count,
    ))
}
