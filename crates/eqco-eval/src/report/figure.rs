//! A chart or picture of the report, for the page and as files.

use super::chart::Drawing;

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// Name of its files, without extension.
    pub(crate) stem: String,
    /// What to know about it, for people.
    pub(crate) caption: String,
    pub(crate) drawing: Drawing,
    /// The same as pixels, where it is made of pictures: the bytes of a PNG file.
    pub(crate) png: Option<Vec<u8>>,
}

impl Figure {
    /// A chart.
    pub(crate) fn chart(stem: &str, caption: impl Into<String>, drawing: Drawing) -> Self {
        Self {
            stem: stem.to_owned(),
            caption: caption.into(),
            drawing,
            png: None,
        }
    }
}
