//! `eqco-eval linear`: the linear probe.

use anyhow::Result;
use clap::Args;
use eqco_eval::{LinearProbeConfig, ResultTable, linear_probe};

use super::output::{as_json, print};
use super::subjects::SubjectArgs;

/// Flags of `linear`.
#[derive(Args, Debug)]
pub(super) struct LinearArgs {
    #[command(flatten)]
    subjects: SubjectArgs,
    /// Learning rates to choose from, with commas between them
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',',
        default_values_t = LinearProbeConfig::default().learning_rates)]
    learning_rates: Vec<f64>,
    /// Weight decays to choose from, each with every learning rate
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',',
        default_values_t = LinearProbeConfig::default().weight_decays)]
    weight_decays: Vec<f64>,
    /// Passes over the training features
    #[arg(long, value_name = "COUNT", default_value_t = LinearProbeConfig::default().epochs)]
    epochs: usize,
    /// Images per step
    #[arg(long, value_name = "IMAGES", default_value_t = LinearProbeConfig::default().batch_size)]
    batch_size: usize,
    /// Seed of the held-out images and of the order of the batches
    #[arg(long, value_name = "NUMBER", default_value_t = LinearProbeConfig::default().seed)]
    seed: u64,
}

pub(super) fn run(arguments: &LinearArgs) -> Result<()> {
    let config = LinearProbeConfig {
        learning_rates: arguments.learning_rates.clone(),
        weight_decays: arguments.weight_decays.clone(),
        epochs: arguments.epochs,
        batch_size: arguments.batch_size,
        seed: arguments.seed,
        ..LinearProbeConfig::default()
    };
    config.check()?;
    let subjects = arguments.subjects.open()?.represent()?;
    let mut outcomes = Vec::new();
    for (row, features) in &subjects.features {
        outcomes.push((*row, linear_probe(features, &config)?));
    }
    if arguments.subjects.json {
        let by_key = outcomes.iter().map(|(row, outcome)| (row.key(), outcome));
        return print(&as_json(&subjects.provenance, by_key)?);
    }
    let mut table = ResultTable::new(&["linear top-1 %", "training part %"]);
    for (row, outcome) in &outcomes {
        table.add(row.name(), &[outcome.accuracy.top1, outcome.train_top1]);
    }
    let protocol = &outcomes[0].1.protocol;
    print(&format!(
        "linear probe, best of {} settings by {} held-out images: {}, {} training and {} test \
         images\n\n{table}",
        outcomes[0].1.grid.len(),
        outcomes[0].1.held_out_count,
        subjects.data_name,
        protocol.train.count,
        protocol.test.count,
    ))
}
