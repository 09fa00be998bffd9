//! One run folder, read as far as it goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eqco_core::{Alpha, paper_bound};

use super::ReportError;
use super::evaluation::{EvaluationFile, Measurement, Measurements};
use super::find::METRICS;
use super::metrics::{Metrics, RunRecord, parse};
use super::settings::{Settings, rule};

/// A run with everything that its folder tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    path: PathBuf,
    name: String,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    pub(crate) evaluation: EvaluationFile,
}

impl Run {
    /// Reads `config.toml`, `metrics.jsonl` and `evaluation.json` of a run folder. Without the first or the last the run
    /// has no settings or no accuracies, with a note about it.
    ///
    /// # Errors
    /// [`ReportError::Malformed`] if a file is there and not what `eqco-train` writes, [`ReportError::Unreadable`].
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let metrics_path = path.join(METRICS);
        let text = read_if_there(&metrics_path)?.ok_or_else(|| ReportError::NotARun {
            path: path.to_owned(),
        })?;
        let mut metrics = parse(&metrics_path, &text)?;
        let config = path.join("config.toml");
        let settings = match read_if_there(&config)? {
            Some(text) => Settings::parse(&config, &text)?,
            None => {
                metrics.notes.push("the run has no config.toml".to_owned());
                Settings::default()
            }
        };
        let evaluation = path.join("evaluation.json");
        let evaluation = match read_if_there(&evaluation)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| ReportError::Malformed {
                path: evaluation,
                reason: format!("expected the measurements of a run, got {error}"),
            })?,
            None => {
                metrics.notes.push(
                    "the run has no evaluation.json, so that it has no accuracies".to_owned(),
                );
                EvaluationFile::default()
            }
        };
        let unique = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = unique.file_name().unwrap_or(unique.as_os_str());
        Ok(Self {
            path: path.to_owned(),
            name: name.to_string_lossy().into_owned(),
            settings,
            metrics,
            evaluation,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name or path of the data set that the run was trained on, where its configuration tells.
    pub fn data_source(&self) -> Option<&str> {
        self.settings.word("data.source")
    }

    /// Format of that data set, or `auto`, where the run's configuration tells.
    pub fn data_format(&self) -> Option<&str> {
        self.settings.word("data.format")
    }

    /// Training images that the run was limited to; `None` for all of them.
    pub fn data_limit(&self) -> Option<usize> {
        let limit = self.settings.count("data.limit")?;
        (limit > 0).then_some(limit as usize)
    }

    /// What is odd about the run, for people; empty for one that ended in order.
    pub fn notes(&self) -> &[String] {
        &self.metrics.notes
    }

    pub(crate) fn record(&self) -> Option<&RunRecord> {
        self.metrics.run.as_ref()
    }

    pub(crate) fn seed(&self) -> Option<u64> {
        let recorded = self.record().and_then(|record| record.seed);
        recorded.or_else(|| self.settings.count("seed"))
    }

    /// Negatives that a query really has: what the run says, before that what its settings ask for.
    pub(crate) fn negative_count(&self) -> Option<u64> {
        let recorded = self.record().and_then(|record| record.negative_count);
        recorded.or_else(|| match self.settings.word("method.name")? {
            "simclr" => Some(2 * self.batch_size()?.saturating_sub(1)),
            _ => self.settings.count("method.negative_count"),
        })
    }

    pub(crate) fn batch_size(&self) -> Option<u64> {
        self.settings.count("data.loader.batch_size")
    }

    pub(crate) fn temperature(&self) -> Option<f64> {
        self.settings.number("loss.temperature")
    }

    pub(crate) fn epochs(&self) -> Option<f64> {
        self.settings.number("schedule.epochs")
    }

    pub(crate) fn rule(&self) -> Option<String> {
        self.settings.alpha().map(rule)
    }

    /// Alpha as a number, K for InfoNCE and infinity for DCL.
    pub(crate) fn alpha_value(&self) -> Option<f64> {
        match self.settings.alpha()? {
            Alpha::Infonce => Some(self.negative_count()? as f64),
            other => Some(other.value(1)),
        }
    }

    /// Loss of an encoder to which all similarities are equal, in nats: ln(1 + alpha), ln K for DCL.
    pub(crate) fn chance_loss(&self) -> Option<f64> {
        let recorded = self.record().and_then(|record| record.chance_loss);
        recorded.or_else(|| {
            // The paper's bound is the distance of the loss from this level.
            Some(paper_bound(
                0.0,
                self.settings.alpha()?,
                self.negative_count()? as usize,
            ))
        })
    }

    fn pretrained(&self, which: fn(&Measurements) -> &Option<Measurement>) -> Option<f64> {
        let measured = which(self.evaluation.pretrained.as_ref()?).as_ref()?.top1;
        measured.is_finite().then_some(measured)
    }

    /// Nearest-neighbour accuracy after pre-training, in percent.
    pub(crate) fn knn_top1(&self) -> Option<f64> {
        self.pretrained(|row| &row.knn)
    }

    /// Accuracy of the linear probe after pre-training, in percent.
    pub(crate) fn linear_top1(&self) -> Option<f64> {
        self.pretrained(|row| &row.linear_probe)
    }
}

/// The text of a file; `None` if it does not exist.
fn read_if_there(path: &Path) -> Result<Option<String>, ReportError> {
    match fs::read(path) {
        // A cut in the middle of a letter is as much a cut as any other, and left to those who read the text.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run as if read: rule, negatives, temperature, seed and accuracies.
    pub(crate) fn run(
        alpha: &str,
        negatives: u64,
        temperature: f64,
        seed: u64,
        top1: [f64; 2],
    ) -> Run {
        let config = format!(
            "seed = {seed}\nthreads = {seed}\n[method]\nname = \"simo\"\nnegative_count = {negatives}\n[loss]\n\
             temperature = {temperature}\nalpha = {alpha}\n[data.loader]\nbatch_size = 128\n"
        );
        let metrics: String = (0..4)
            .map(|step| {
                let (epoch, loss, scale) = (step / 2, 5.0 - step as f64 - seed as f64, 1.0 / negatives as f64);
                format!(
                    "{{\"kind\":\"step\",\"step\":{step},\"epoch\":{epoch},\"loss\":{loss},\"gradient_scale\":{scale}}}\n"
                )
            })
            .collect();
        let row = serde_json::json!({"knn": {"top1": top1[0]}, "linear_probe": {"top1": top1[1]}});
        Run {
            path: PathBuf::from("runs/x"),
            name: format!("{alpha}-k{negatives}-t{temperature}-s{seed}").replace('"', ""),
            settings: Settings::parse(Path::new("config.toml"), &config).unwrap(),
            metrics: parse(Path::new(METRICS), &metrics).unwrap(),
            evaluation: serde_json::from_value(serde_json::json!({"pretrained": row})).unwrap(),
        }
    }

    #[test]
    fn chance_is_the_loss_of_equal_similarities() {
        let chance = |alpha: &str| run(alpha, 16, 0.2, 0, [1.0, 2.0]).chance_loss().unwrap();
        assert!((chance("256.0") - 257f64.ln()).abs() < 1e-12);
        assert!((chance("\"infonce\"") - 17f64.ln()).abs() < 1e-12);
        assert!((chance("\"decoupled\"") - 16f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_folder_with_metrics_alone_is_a_run_with_notes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Run::read(folder.path()),
            Err(ReportError::NotARun { .. })
        ));
        fs::write(
            folder.path().join(METRICS),
            "{\"kind\":\"run\",\"seed\":7}\n{\"kind\":\"st\u{e9}",
        )
        .unwrap();
        let run = Run::read(folder.path()).unwrap();
        assert_eq!(
            (
                run.seed(),
                run.knn_top1(),
                run.chance_loss(),
                run.batch_size()
            ),
            (Some(7), None, None, None)
        );
        assert_eq!(run.notes().len(), 4, "{:?}", run.notes());
        fs::write(folder.path().join("evaluation.json"), "[1]").unwrap();
        let error = Run::read(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("evaluation.json: expected the measurements"),
            "{error}"
        );
    }
}
