//! Decoded images, as they are uploaded.

use candle_core::{Result, bail};

/// Images of any sizes in host memory, RGB bytes, to make views of.
#[derive(Debug)]
pub struct SourceImages<'a> {
    pub(super) pixels: &'a [u8],
    pub(super) places: Vec<Place>,
}

/// Where an image lies among the pixels of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) first_pixel: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl<'a> SourceImages<'a> {
    /// Images that lie in `pixels` one after the other without gaps, RGB, `[height, width, 3]` each, with `sizes` `[N]` of
    /// (width, height).
    ///
    /// # Errors
    /// When a side is zero, the number of bytes does not fit the sizes, or there are 2^32 pixels or more.
    pub fn new(pixels: &'a [u8], sizes: &[(usize, usize)]) -> Result<Self> {
        let mut places = Vec::with_capacity(sizes.len());
        let mut all = 0u32;
        for (number, &(width, height)) in sizes.iter().enumerate() {
            let place = place(all, width, height);
            let Some((place, end)) = place else {
                bail!(
                    "image {number}: expected neither side zero and fewer than 2^32 pixels in all images, found {width} x \
                     {height} pixels after {all}"
                );
            };
            places.push(place);
            all = end;
        }
        if pixels.len() as u64 != 3 * u64::from(all) {
            bail!(
                "expected {} bytes for {} RGB images of {all} pixels together, found {}",
                3 * u64::from(all),
                sizes.len(),
                pixels.len()
            );
        }
        Ok(Self { pixels, places })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// An image behind `first_pixel` others, and where it ends.
fn place(first_pixel: u32, width: usize, height: usize) -> Option<(Place, u32)> {
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    let count = width.checked_mul(height).filter(|count| *count > 0)?;
    let place = Place {
        first_pixel,
        width,
        height,
    };
    Some((place, first_pixel.checked_add(count)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_lie_one_behind_the_other() -> Result<()> {
        let sizes = [(2, 3), (1, 1), (4, 2)];
        let images = SourceImages::new(&[0; 45], &sizes)?;
        let firsts: Vec<u32> = images
            .places
            .iter()
            .map(|place| place.first_pixel)
            .collect();
        assert_eq!(firsts, [0, 6, 7]);
        assert_eq!((images.len(), images.is_empty()), (3, false));
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_numbers() {
        let refused = |bytes: usize, sizes: &[(usize, usize)]| {
            SourceImages::new(&vec![0; bytes], sizes)
                .unwrap_err()
                .to_string()
        };
        for (bytes, sizes, parts) in [
            (5, &[(1, 2)][..], ["expected 6 bytes", "found 5"]),
            (6, &[(1, 2), (0, 4)], ["image 1", "0 x 4"]),
            (0, &[(1 << 16, 1 << 16)], ["image 0", "65536 x 65536"]),
            (0, &[(usize::MAX, 1)], ["image 0", "2^32"]),
        ] {
            let message = refused(bytes, sizes);
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
