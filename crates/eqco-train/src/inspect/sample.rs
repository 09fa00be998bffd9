//! Sizes and formats of some images, from their headers.

use std::collections::BTreeMap;

use anyhow::Result;
use eqco_data::{DataError, Dataset, ImageHeader};
use serde::Serialize;

use super::Spread;
use crate::in_order::in_order;

/// What the headers of images say that are evenly spread over a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeaderSample {
    /// Images looked at.
    pub images: usize,
    /// Those among them whose header cannot be read.
    pub unreadable: usize,
    /// The others by format and colours, as [`ImageHeader`] names them; "pixels" where the source holds pixels.
    pub formats: BTreeMap<&'static str, usize>,
    /// Pixels in a row; `None` if no header can be read.
    pub width: Option<Spread>,
    /// Rows.
    pub height: Option<Spread>,
    /// Length of the files in bytes; `None` where the source holds pixels.
    pub bytes: Option<Spread>,
}

/// One image: its header, and the length of its file if it is one.
type Seen = Result<(ImageHeader, Option<usize>), DataError>;

impl HeaderSample {
    /// Looks at `count` images, or at all if there are fewer, on the current rayon pool; `progress` is told the share of them
    /// that is done, 0 to 1.
    ///
    /// # Errors
    /// None of an image, but those of a source that cannot be read at all.
    pub fn of(dataset: &dyn Dataset, count: usize, mut progress: impl FnMut(f64)) -> Result<Self> {
        let images = count.min(dataset.len());
        let mut sample = Self {
            images,
            unreadable: 0,
            formats: BTreeMap::new(),
            width: None,
            height: None,
            bytes: None,
        };
        let (mut widths, mut heights, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let see = |number| seen(dataset, number * dataset.len() / images);
        in_order(images, see, |number, seen| {
            match seen {
                Ok((header, bytes)) => {
                    *sample.formats.entry(header.format).or_default() += 1;
                    widths.push(header.width);
                    heights.push(header.height);
                    lengths.extend(bytes);
                }
                Err(error) if error.is_of_source() => return Err(error.into()),
                Err(_) => sample.unreadable += 1,
            }
            progress((number + 1) as f64 / images as f64);
            Ok(())
        })?;
        sample.width = Spread::of(widths);
        sample.height = Spread::of(heights);
        sample.bytes = Spread::of(lengths);
        Ok(sample)
    }
}

fn seen(dataset: &dyn Dataset, index: usize) -> Seen {
    if let Some(bytes) = dataset.encoded(index)? {
        let header = ImageHeader::of(&bytes, &dataset.describe(index))?;
        return Ok((header, Some(bytes.len())));
    }
    let image = dataset.image(index)?;
    let header = ImageHeader {
        width: image.width(),
        height: image.height(),
        format: "pixels",
    };
    Ok((header, None))
}
