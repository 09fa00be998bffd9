//! Rows of pictures as one picture, each with a coloured frame where wanted.

use eqco_data::Image;
use eqco_data::decode::MAX_PIXELS;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use crate::EvalError;

/// Where the pictures of a grid stand, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridGeometry {
    /// Side of a picture, at least 1.
    pub side: usize,
    /// Width of a frame around a picture; the room is there without a frame too.
    pub frame: usize,
    /// White pixels between columns.
    pub column_gap: usize,
    /// White pixels below each row, for example for captions that are drawn over the grid.
    pub row_gap: usize,
}

impl GridGeometry {
    /// Left and upper edge of the picture in a row and column, without its frame.
    pub fn corner(&self, row: usize, column: usize) -> (usize, usize) {
        let cell = self.side + 2 * self.frame;
        (
            column * (cell + self.column_gap) + self.frame,
            row * (cell + self.row_gap) + self.frame,
        )
    }

    /// Width and height of a grid.
    pub fn size(&self, rows: usize, columns: usize) -> (usize, usize) {
        let cell = self.side + 2 * self.frame;
        let width = columns * (cell + self.column_gap);
        (
            width.saturating_sub(self.column_gap),
            rows * (cell + self.row_gap),
        )
    }
}

/// One picture of a grid.
#[derive(Clone, Debug)]
pub struct Tile {
    /// What is shown.
    pub image: Image,
    /// Colour (RGB) of a frame around it.
    pub frame: Option<[u8; 3]>,
}

/// Draws `rows`, top to bottom and left to right, as one picture on white. Rows may differ in length, what is missing stays
/// white. Of each image the square in its centre is shown: enlarged
/// without smoothing, so that small images show their pixels, or reduced with smoothing.
///
/// # Errors
/// [`EvalError::InvalidSetting`] if there is no picture, if the side is 0, or if the whole would have more than [`MAX_PIXELS`]
/// pixels.
pub fn picture_grid(rows: &[Vec<Tile>], geometry: GridGeometry) -> Result<Image, EvalError> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    if columns == 0 || geometry.side == 0 {
        let got = format!("{columns} pictures of {} pixels", geometry.side);
        return Err(EvalError::setting(
            "picture grid",
            "at least one picture of at least one pixel",
            got,
        ));
    }
    let (width, height) = geometry.size(rows.len(), columns);
    if width.saturating_mul(height) > MAX_PIXELS {
        let expected = format!("at most {MAX_PIXELS} pixels: fewer rows or columns");
        let got = format!("{width}x{height}");
        return Err(EvalError::setting("picture grid", expected, got));
    }
    let mut canvas = RgbImage::from_pixel(width as u32, height as u32, Rgb([255; 3]));
    for (row, pictures) in rows.iter().enumerate() {
        for (column, Tile { image, frame }) in pictures.iter().enumerate() {
            let (left, top) = geometry.corner(row, column);
            if let Some(colour) = frame {
                let (side, frame) = (geometry.side + 2 * geometry.frame, geometry.frame);
                let block = RgbImage::from_pixel(side as u32, side as u32, Rgb(*colour));
                imageops::replace(
                    &mut canvas,
                    &block,
                    (left - frame) as i64,
                    (top - frame) as i64,
                );
            }
            let picture = centre_square(image, geometry.side as u32);
            imageops::replace(&mut canvas, &picture, left as i64, top as i64);
        }
    }
    Ok(Image::new(width, height, canvas.into_raw())?)
}

/// The square in the centre of an image, `side` pixels wide.
fn centre_square(image: &Image, side: u32) -> RgbImage {
    let (width, height) = (image.width() as u32, image.height() as u32);
    let shorter = width.min(height);
    let (left, top) = ((width - shorter) / 2, (height - shorter) / 2);
    let mut square = RgbImage::new(shorter, shorter);
    for (x, y, pixel) in square.enumerate_pixels_mut() {
        let at = ((top + y) as usize * image.width() + (left + x) as usize) * 3;
        pixel.0.copy_from_slice(&image.pixels()[at..at + 3]);
    }
    let filter = if shorter > side {
        FilterType::Triangle
    } else {
        FilterType::Nearest
    };
    imageops::resize(&square, side, side, filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: GridGeometry = GridGeometry {
        side: 4,
        frame: 1,
        column_gap: 3,
        row_gap: 2,
    };

    #[test]
    fn pictures_stand_where_the_geometry_says_with_their_frames() {
        let plain = |value, frame| Tile {
            image: Image::new(2, 3, vec![value; 18]).unwrap(),
            frame,
        };
        let rows = [
            vec![plain(10, None), plain(20, Some([0, 200, 0]))],
            vec![plain(30, Some([200, 0, 0]))],
        ];
        let grid = picture_grid(&rows, GEOMETRY).unwrap();
        assert_eq!((grid.width(), grid.height()), (15, 16));
        let pixel = |x: usize, y: usize| {
            let at = (y * grid.width() + x) * 3;
            [0, 1, 2].map(|channel| grid.pixels()[at + channel])
        };
        assert_eq!(GEOMETRY.corner(1, 1), (10, 9));
        assert_eq!((pixel(1, 1), pixel(4, 4)), ([10; 3], [10; 3]));
        assert_eq!(pixel(0, 0), [255; 3], "no frame");
        assert_eq!((pixel(9, 0), pixel(10, 1)), ([0, 200, 0], [20; 3]));
        assert_eq!((pixel(0, 8), pixel(1, 9)), ([200, 0, 0], [30; 3]));
        assert_eq!(
            pixel(10, 9),
            [255; 3],
            "no second picture in the second row"
        );
    }

    #[test]
    fn small_images_keep_their_pixels_and_large_ones_are_smoothed() {
        let image = Image::from_grey(2, 2, &[0, 255, 255, 0]).unwrap();
        let grown = centre_square(&image, 4);
        assert_eq!(grown.get_pixel(1, 1).0, [0; 3]);
        assert_eq!(grown.get_pixel(2, 1).0, [255; 3]);
        let shrunk = centre_square(&image, 1);
        let value = shrunk.get_pixel(0, 0).0[0];
        assert!((120..=135).contains(&value), "{value}");
    }

    #[test]
    fn a_grid_without_pictures_is_refused() {
        let error = picture_grid(&[], GEOMETRY).unwrap_err().to_string();
        assert!(error.ends_with("got 0 pictures of 4 pixels"), "{error}");
        let image = Image::new(1, 1, vec![0; 3]).unwrap();
        let rows = [vec![Tile { image, frame: None }]];
        for side in [0, 1 << 20] {
            let geometry = GridGeometry { side, ..GEOMETRY };
            assert!(picture_grid(&rows, geometry).is_err(), "{side}");
        }
    }
}
