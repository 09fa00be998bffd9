//! Every image decoded once.

use std::collections::BTreeMap;
use std::error::Error;

use anyhow::Result;
use eqco_data::dataset::ReadingInOrder;
use eqco_data::{DataError, Dataset};
use serde::Serialize;

use crate::in_order::in_order;

/// An image that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadImage {
    /// Its place in the data set, from 0.
    pub index: usize,
    /// Its path or id.
    pub image: String,
    /// Why not.
    pub reason: String,
}

/// The images of a data set that cannot be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scan {
    /// Images of the data set, all of which were decoded.
    pub images: usize,
    /// Those that could not be, in order.
    pub bad: Vec<BadImage>,
    /// How many of them there are by reason, without what differs from file to file.
    pub reasons: BTreeMap<String, usize>,
    /// The share, 0 to 1, at which a run gives up: `data.loader.max_bad_share`.
    pub max_bad_share: f64,
}

impl Scan {
    /// Decodes every image on the current rayon pool; `progress` is told the share that is done, 0 to 1, and the number of bad
    /// images so far.
    ///
    /// # Errors
    /// None of an image, but those of a source that cannot be read at all.
    pub fn of(
        dataset: &dyn Dataset,
        max_bad_share: f64,
        mut progress: impl FnMut(f64, usize),
    ) -> Result<Self> {
        let images = dataset.len();
        let mut bad = Vec::new();
        let failure = |index| dataset.image(index).err();
        let reading = ReadingInOrder::begin(dataset);
        in_order(images, failure, |index, error| {
            reading.advance(index + 1);
            let error = match error {
                Some(error) if error.is_of_source() => return Err(error.into()),
                error => error,
            };
            bad.extend(error.map(|error| BadImage {
                index,
                image: dataset.describe(index),
                reason: reason(&error),
            }));
            progress((index + 1) as f64 / images as f64, bad.len());
            Ok(())
        })?;
        let mut reasons = BTreeMap::new();
        for image in &bad {
            *reasons.entry(kind(&image.reason)).or_default() += 1;
        }
        Ok(Self {
            images,
            bad,
            reasons,
            max_bad_share,
        })
    }

    /// Whether a run would give up over these images.
    pub fn is_too_many(&self) -> bool {
        self.bad.len() as f64 > self.max_bad_share * self.images as f64
    }
}

/// What an error says beside the image, with its causes.
fn reason(error: &DataError) -> String {
    if let DataError::Decode { reason, .. } = error {
        return reason.clone();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

/// A reason without its details: up to the first colon, with N for every number.
fn kind(reason: &str) -> String {
    let general = reason.split(':').next().unwrap_or_default();
    let mut kind = String::new();
    let mut is_in_number = false;
    for character in general.chars() {
        if !character.is_ascii_digit() {
            kind.push(character);
        } else if !is_in_number {
            kind.push('N');
        }
        is_in_number = character.is_ascii_digit();
    }
    kind.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_one_kind_are_counted_together() {
        assert_eq!(
            kind("neither PNG nor JPEG: it begins with [61]"),
            "neither PNG nor JPEG"
        );
        let large = "20000 x 3 pixels; the limits are 16384 a side and 33554432 in all";
        assert_eq!(
            kind(large),
            "N x N pixels; the limits are N a side and N in all"
        );
        assert_eq!(kind("the file is empty"), "the file is empty");
        assert_eq!(kind(""), "");
    }

    #[test]
    fn the_system_s_word_is_the_reason_of_a_file_that_cannot_be_read() {
        let error = DataError::Io {
            path: "a/b.jpg".into(),
            source: std::io::Error::other("no such thing"),
        };
        assert_eq!(reason(&error), "no such thing");
    }

    #[test]
    fn too_many_are_more_than_the_share() {
        let scan = |bad: usize, max_bad_share| {
            let image = BadImage {
                index: 0,
                image: String::new(),
                reason: String::new(),
            };
            Scan {
                images: 200,
                bad: vec![image; bad],
                reasons: BTreeMap::new(),
                max_bad_share,
            }
        };
        assert!(!scan(2, 0.01).is_too_many());
        assert!(scan(3, 0.01).is_too_many());
        assert!(!scan(0, 0.0).is_too_many() && scan(1, 0.0).is_too_many());
    }
}
