//! Representations as files for other programs: safetensors, NumPy and Parquet.

mod npy;
mod parquet;
mod safetensors;
mod thrift;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{EvalError, ImageRows, WholeFile};

/// The form of a file of representations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureFormat {
    /// Tensors `representations` (or `embeddings`) `[count, dim]`, f32, and `labels` `[count]`, i64, where there are labels;
    /// where they come from as metadata.
    Safetensors,
    /// The matrix alone, f32 `[count, dim]`; labels, where there are some, in `NAME.labels.npy` beside it, i64 `[count]`.
    Npy,
    /// A table with a row per image: `image`, `label`, `class` and `representation` (or `embedding`).
    Parquet,
}

impl FeatureFormat {
    /// Every format with its extension.
    pub const ALL: [(&'static str, Self); 3] = [
        ("safetensors", Self::Safetensors),
        ("npy", Self::Npy),
        ("parquet", Self::Parquet),
    ];

    /// The format that the extension of `path` names.
    ///
    /// # Errors
    /// [`EvalError::OutputPlace`] if it names none.
    pub fn of_path(path: &Path) -> Result<Self, EvalError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let known = Self::ALL.into_iter().find(|(name, _)| {
            extension.is_some_and(|extension| extension.eq_ignore_ascii_case(name))
        });
        known.map(|(_, format)| format).ok_or_else(|| {
            let found = extension.map_or("no extension".into(), |e| format!("extension `{e}`"));
            EvalError::OutputPlace {
                path: path.to_owned(),
                expected: "a name that ends in .safetensors, .npy or .parquet".into(),
                found,
                next: "choose one of these extensions, or name the format with --out-format",
            }
        })
    }
}

/// A place for representations, found good before they are made.
#[derive(Debug)]
pub struct FeatureFile {
    format: FeatureFormat,
    file: WholeFile,
    labels: Option<WholeFile>,
}

impl FeatureFile {
    /// Prepares to write `path`, and the file of labels beside it where the format has one and `with_labels` says that there
    /// will be labels.
    ///
    /// # Errors
    /// Those of [`WholeFile::create`].
    pub fn create(
        path: &Path,
        format: FeatureFormat,
        with_labels: bool,
    ) -> Result<Self, EvalError> {
        let file = WholeFile::create(path)?;
        let labels = match format {
            FeatureFormat::Npy if with_labels => Some(WholeFile::create(&labels_path(path))?),
            _ => None,
        };
        Ok(Self {
            format,
            file,
            labels,
        })
    }

    /// Every path that will be written.
    pub fn paths(&self) -> Vec<PathBuf> {
        let labels = self.labels.iter();
        std::iter::once(&self.file)
            .chain(labels)
            .map(|file| file.path().to_owned())
            .collect()
    }

    /// Writes `rows`; `checkpoint` tells which file the encoder comes from. The same rows always give the same bytes.
    ///
    /// # Errors
    /// [`EvalError::Unwritable`].
    pub fn write(mut self, rows: &ImageRows, checkpoint: &Path) -> Result<(), EvalError> {
        let source = Source::new(rows, checkpoint);
        self.file.fill(|out| match self.format {
            FeatureFormat::Safetensors => safetensors::write(out, rows, &source),
            FeatureFormat::Npy => npy::write_matrix(out, &rows.values, rows.dim),
            FeatureFormat::Parquet => parquet::write(out, rows, &source),
        })?;
        if let (Some(mut file), Some(labels)) = (self.labels, &rows.labels) {
            file.fill(|out| npy::write_labels(out, labels))?;
            file.publish()?;
        }
        self.file.publish()
    }
}

/// `NAME.labels.npy` for `NAME.npy`.
fn labels_path(path: &Path) -> PathBuf {
    path.with_extension("labels.npy")
}

/// Where rows come from, as the metadata of a file.
#[derive(Clone, Debug, Serialize)]
struct Source {
    checkpoint: String,
    encoder_sha256: String,
    data: String,
    split: String,
    /// A JSON list.
    class_names: String,
}

impl Source {
    fn new(rows: &ImageRows, checkpoint: &Path) -> Self {
        Self {
            checkpoint: checkpoint.display().to_string(),
            encoder_sha256: rows.encoder_sha256.clone(),
            data: rows.origin.data.clone(),
            split: rows.origin.split.clone(),
            class_names: serde_json::Value::from(rows.class_names.clone()).to_string(),
        }
    }

    fn entries(&self) -> [(&'static str, &str); 5] {
        [
            ("checkpoint", &self.checkpoint),
            ("encoder_sha256", &self.encoder_sha256),
            ("data", &self.data),
            ("split", &self.split),
            ("class_names", &self.class_names),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{Device, Tensor};

    use super::*;
    use crate::{EncoderOutput, Origin};

    /// Three images; one has a name with a quote and a letter of two bytes.
    pub(super) fn three_rows(is_labelled: bool) -> ImageRows {
        ImageRows {
            origin: Origin::new("toy", "train", "representations"),
            output: EncoderOutput::Representation,
            encoder_sha256: "00ff".into(),
            dim: 2,
            values: vec![1.0, -2.5, 0.0, 3.25, f32::MIN_POSITIVE, 1e30],
            indices: vec![0, 1, 2],
            images: ["a/1.png", "b/\"ü\".png", "a/3.png"]
                .map(String::from)
                .to_vec(),
            labels: is_labelled.then(|| vec![0, 1, 0]),
            class_names: match is_labelled {
                true => vec!["a".into(), "b".into()],
                false => Vec::new(),
            },
        }
    }

    fn written(name: &str, rows: &ImageRows) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let format = FeatureFormat::of_path(&path).unwrap();
        let file = FeatureFile::create(&path, format, rows.labels.is_some()).unwrap();
        assert_eq!(file.paths()[0], path);
        file.write(rows, Path::new("runs/x.safetensors")).unwrap();
        (folder, path)
    }

    #[test]
    fn candle_reads_the_safetensors_and_their_metadata() {
        let rows = three_rows(true);
        let (_folder, path) = written("out.safetensors", &rows);
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let values = tensors["representations"].to_vec2::<f32>().unwrap();
        assert_eq!(values.concat(), rows.values);
        assert_eq!(tensors["labels"].to_vec1::<i64>().unwrap(), [0, 1, 0]);
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = ::safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        assert_eq!(metadata["checkpoint"], "runs/x.safetensors");
        assert_eq!(metadata["encoder_sha256"], "00ff");
        assert_eq!(
            (metadata["data"].as_str(), metadata["split"].as_str()),
            ("toy", "train")
        );
        assert_eq!(metadata["class_names"], r#"["a","b"]"#);

        let (_folder, path) = written("out.safetensors", &three_rows(false));
        let tensors: HashMap<String, Tensor> =
            candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["representations"]);
    }

    #[test]
    fn candle_reads_the_matrix_and_the_labels_beside_it() {
        let rows = three_rows(true);
        let (folder, path) = written("out.npy", &rows);
        let read = |path: &Path| Tensor::read_npy(path).unwrap();
        assert_eq!(read(&path).to_vec2::<f32>().unwrap().concat(), rows.values);
        let labels = folder.path().join("out.labels.npy");
        assert_eq!(read(&labels).to_vec1::<i64>().unwrap(), [0, 1, 0]);
        let (folder, _) = written("out.npy", &three_rows(false));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn extensions_name_formats_and_others_are_refused() {
        for (name, format) in FeatureFormat::ALL {
            let path = PathBuf::from(format!("a.b.{}", name.to_uppercase()));
            assert_eq!(FeatureFormat::of_path(&path).unwrap(), format);
        }
        let refused = |name: &str| FeatureFormat::of_path(Path::new(name)).unwrap_err();
        assert!(refused("out").to_string().ends_with("found no extension"));
        assert!(
            refused("a.csv")
                .to_string()
                .ends_with("found extension `csv`")
        );
        assert!(refused("a.csv").hint().unwrap().contains("--out-format"));
    }
}
