//! Where the figures come from: protocols, configurations, hardware.

use serde_json::Value;

use super::Run;
use super::chart::{fixed, grouped};
use super::evaluation::ProtocolText;
use super::html::{details, paragraph, preformatted, table};
use super::metrics::RunRecord;
use super::tables::{ABSENT, duration, names};

/// A protocol with the figures and the runs that it belongs to.
struct Shared {
    cells: Vec<String>,
    figure: &'static str,
    representations: Vec<&'static str>,
    runs: Vec<String>,
}

/// The protocol of every measurement; equal ones once.
pub(crate) fn protocols(runs: &[Run]) -> String {
    let mut found: Vec<Shared> = Vec::new();
    for (name, run) in names(runs).into_iter().zip(runs) {
        for (representation, measurements) in run.evaluation.rows() {
            let measured = [
                ("kNN", &measurements.knn),
                ("linear", &measurements.linear_probe),
            ];
            for (figure, measurement) in measured {
                let protocol = measurement
                    .as_ref()
                    .and_then(|measurement| measurement.protocol.as_ref());
                if let Some(protocol) = protocol {
                    add(&mut found, figure, representation, cells(protocol), &name);
                }
            }
        }
    }
    if found.is_empty() {
        return paragraph("No run has been evaluated.");
    }
    let rows: Vec<Vec<String>> = (found.into_iter())
        .map(|shared| {
            let figure = format!(
                "{} top-1: {}",
                shared.figure,
                shared.representations.join(", ")
            );
            let of_runs = match shared.runs.len() {
                count if count == runs.len() => "all".to_owned(),
                1..=3 => shared.runs.join(", "),
                count => format!("{count} of {}", runs.len()),
            };
            [vec![figure], shared.cells, vec![of_runs]].concat()
        })
        .collect();
    let head = [
        "figure",
        "method",
        "settings",
        "learnt from",
        "measured on",
        "numbers per image",
        "classes",
        "runs",
    ];
    wrapping(&table(&head, &rows))
}

fn add(
    found: &mut Vec<Shared>,
    figure: &'static str,
    representation: &'static str,
    cells: Vec<String>,
    run: &str,
) {
    let place = found
        .iter()
        .position(|other| other.figure == figure && other.cells == cells);
    let shared = match place {
        Some(place) => &mut found[place],
        None => {
            found.push(Shared {
                cells,
                figure,
                representations: Vec::new(),
                runs: Vec::new(),
            });
            let last = found.len() - 1;
            &mut found[last]
        }
    };
    if !shared.representations.contains(&representation) {
        shared.representations.push(representation);
    }
    if !shared.runs.iter().any(|other| other == run) {
        shared.runs.push(run.to_owned());
    }
}

/// A table whose texts may take several lines.
fn wrapping(table: &str) -> String {
    table.replace("<td>", "<td class=\"text\">")
}

fn cells(protocol: &ProtocolText) -> Vec<String> {
    let sample = |sample: &crate::Sample| {
        format!(
            "{} images, {} part of {}",
            grouped(sample.count as u64),
            sample.origin.split,
            sample.origin.data
        )
    };
    vec![
        protocol.method.clone(),
        settings(&protocol.config),
        sample(&protocol.train),
        sample(&protocol.test),
        grouped(protocol.dim),
        grouped(protocol.class_count),
    ]
}

/// `neighbours 20, temperature 0.07`
fn settings(config: &Value) -> String {
    let Some(map) = config.as_object() else {
        return ABSENT.to_owned();
    };
    let settings: Vec<String> = (map.iter())
        .map(|(name, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{} {}", name.replace('_', " "), value.replace(',', ", "))
        })
        .collect();
    settings.join(", ")
}

/// What each run ran on and how fast, and its resolved configuration.
pub(crate) fn machines(runs: &[Run]) -> String {
    let absent = || ABSENT.to_owned();
    let rows: Vec<Vec<String>> = (names(runs).into_iter().zip(runs))
        .map(|(name, run)| {
            let record = run.record();
            let text = |value: fn(&RunRecord) -> &String| {
                record
                    .map(value)
                    .filter(|text| !text.is_empty())
                    .cloned()
                    .unwrap_or_else(absent)
            };
            let memory = record.and_then(|record| record.machine.memory_bytes);
            vec![
                name,
                text(|record| &record.version),
                text(|record| &record.commit),
                text(|record| &record.data_set),
                record.map_or_else(absent, hardware),
                record
                    .and_then(|record| record.threads)
                    .map_or_else(absent, grouped),
                text(|record| &record.precision),
                memory.map_or_else(absent, |bytes| {
                    format!("{} GiB", fixed(bytes as f64 / f64::from(1 << 30), 1))
                }),
                run.metrics
                    .images_per_second()
                    .map_or_else(absent, |rate| fixed(rate, 0)),
                run.metrics.seconds().map_or_else(absent, duration),
            ]
        })
        .collect();
    let head = [
        "run",
        "version",
        "commit",
        "training images",
        "hardware",
        "threads",
        "precision",
        "memory",
        "images/s",
        "time",
    ];
    wrapping(&table(&head, &rows))
}

fn hardware(record: &RunRecord) -> String {
    let machine = &record.machine;
    let cores = machine.cores.map(|cores| format!("{cores} cores"));
    let sets = (!machine.instruction_sets.is_empty()).then(|| machine.instruction_sets.join(" "));
    let device =
        (!record.device.is_empty()).then(|| format!("{} ({})", record.device, record.backend));
    let parts = [
        Some(machine.cpu.clone()).filter(|cpu| !cpu.is_empty()),
        cores,
        sets,
        device,
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        ABSENT.to_owned()
    } else {
        parts.join(", ")
    }
}

/// Every resolved configuration, folded.
pub(crate) fn configurations(runs: &[Run]) -> String {
    let configuration = |(name, run): (String, &Run)| match &*run.settings.text {
        "" => String::new(),
        text => details(&format!("config.toml of {name}"), &preformatted(text)),
    };
    names(runs)
        .into_iter()
        .zip(runs)
        .map(configuration)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::run;
    use super::*;

    #[test]
    fn equal_protocols_are_told_once() {
        let mut runs = [0, 1, 2, 3, 4].map(|seed| run("256.0", 16, 0.2, seed, [1.0; 2]));
        assert!(protocols(&runs).contains("No run has been evaluated"));
        let sample = |split: &str| serde_json::json!({"origin": {"data": "<d>", "split": split, "representation": "e"}, "count": 2000});
        for (index, run) in runs.iter_mut().enumerate() {
            let config = serde_json::json!({"neighbours": if index == 0 { 5 } else { 20 }, "learning_rates": [1.0, 3.0]});
            let protocol = serde_json::json!({"method": "m", "config": config, "train": sample("train"),
                "test": sample("test"), "dim": 64, "class_count": 10});
            let row = serde_json::json!({"knn": {"top1": 1.0, "protocol": protocol}});
            let rows = serde_json::json!({"pretrained": row, "untrained": row});
            run.evaluation = serde_json::from_value(rows).unwrap();
        }
        let html = protocols(&runs);
        assert_eq!(
            html.matches("kNN top-1: pre-trained, untrained").count(),
            2,
            "{html}"
        );
        assert!(
            html.contains("neighbours 20") && html.contains("learning rates [1.0, 3.0]"),
            "{html}"
        );
        assert!(
            html.contains("4 of 5") && html.contains("2,000 images, train part of &lt;d&gt;"),
            "{html}"
        );
        assert!(configurations(&runs).contains("alpha = 256.0"));
    }

    #[test]
    fn hardware_says_what_is_known() {
        let record: RunRecord = serde_json::from_str(r#"{"device":"cpu","backend":"portable","machine":{"cpu":"Xeon","cores":2,"instruction_sets":["avx2","fma"]}}"#).unwrap();
        assert_eq!(hardware(&record), "Xeon, 2 cores, avx2 fma, cpu (portable)");
        assert_eq!(hardware(&RunRecord::default()), "–");
    }
}
