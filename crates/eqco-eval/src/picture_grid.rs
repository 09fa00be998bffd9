//! Images side by side in one picture.

use std::io;

use eqco_data::Image;
use eqco_data::decode::MAX_PIXELS;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::EvalError;

/// White between the tiles, in pixels; a frame lies within.
const GAP: usize = 10;
/// Width of a frame in pixels.
const FRAME: usize = 3;
const WHITE: [u8; 3] = [255; 3];

/// One image of a grid.
#[derive(Clone, Debug)]
pub struct Tile {
    /// What is shown.
    pub image: Image,
    /// Colour (RGB) of a frame around it.
    pub frame: Option<[u8; 3]>,
}

/// Draws rows of tiles, each in a square of `side` pixels: images keep their proportions and are scaled by their nearest
/// pixels, so that single pixels of small images stay visible. Rows may differ in length.
///
/// # Errors
/// [`EvalError::InvalidSetting`] if there is no tile, `side` is 0, or the picture would have more than [`MAX_PIXELS`] pixels.
pub fn picture_grid(rows: &[Vec<Tile>], side: usize) -> Result<Image, EvalError> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    if columns == 0 || side == 0 {
        let got = format!("{columns} columns of {side} pixels");
        return Err(EvalError::setting(
            "picture",
            "at least one tile of one pixel",
            got,
        ));
    }
    let extent = |tiles: usize| tiles.saturating_mul(side + GAP).saturating_add(GAP);
    let (width, height) = (extent(columns), extent(rows.len()));
    if width.saturating_mul(height) > MAX_PIXELS {
        let expected = format!("at most {MAX_PIXELS} pixels: fewer rows or columns");
        return Err(EvalError::setting(
            "picture",
            expected,
            format!("{width}x{height}"),
        ));
    }
    let mut canvas = Canvas {
        width,
        pixels: WHITE.repeat(width * height),
    };
    for (row, tiles) in rows.iter().enumerate() {
        for (column, tile) in tiles.iter().enumerate() {
            let corner = (extent(column), extent(row));
            canvas.draw(tile, corner, side);
        }
    }
    Ok(Image::new(width, height, canvas.pixels)?)
}

/// An image as the bytes of a PNG file.
///
/// # Errors
/// What the encoder says, for instance when the sides do not fit into 32 bits.
pub fn png(image: &Image) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let side = |side: usize| u32::try_from(side).map_err(io::Error::other);
    let (width, height) = (side(image.width())?, side(image.height())?);
    PngEncoder::new(&mut bytes)
        .write_image(image.pixels(), width, height, ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    Ok(bytes)
}

struct Canvas {
    width: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    /// Draws a tile into the square of `side` pixels whose upper left corner is (x, y).
    fn draw(&mut self, tile: &Tile, (x, y): (usize, usize), side: usize) {
        let image = &tile.image;
        let longest = image.width().max(image.height());
        let scaled = |length: usize| (length * side / longest).max(1);
        let (width, height) = (scaled(image.width()), scaled(image.height()));
        let (left, top) = (x + (side - width) / 2, y + (side - height) / 2);
        if let Some(colour) = tile.frame {
            let (left, top) = (left - FRAME, top - FRAME);
            self.fill(
                (left, top),
                (width + 2 * FRAME, height + 2 * FRAME),
                |_, _| colour,
            );
        }
        self.fill((left, top), (width, height), |x, y| {
            // Each target pixel takes the source pixel that it lies in.
            let (x, y) = (x * image.width() / width, y * image.height() / height);
            let at = 3 * (y * image.width() + x);
            let pixel = &image.pixels()[at..at + 3];
            [pixel[0], pixel[1], pixel[2]]
        });
    }

    fn fill(
        &mut self,
        (left, top): (usize, usize),
        (width, height): (usize, usize),
        colour: impl Fn(usize, usize) -> [u8; 3],
    ) {
        for y in 0..height {
            for x in 0..width {
                let at = 3 * ((top + y) * self.width + left + x);
                self.pixels[at..at + 3].copy_from_slice(&colour(x, y));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 3] = [200, 0, 0];

    fn tile(width: usize, height: usize, value: u8, frame: Option<[u8; 3]>) -> Tile {
        let image = Image::new(width, height, vec![value; width * height * 3]).unwrap();
        Tile { image, frame }
    }

    fn at(image: &Image, x: usize, y: usize) -> [u8; 3] {
        let at = 3 * (y * image.width() + x);
        image.pixels()[at..at + 3].try_into().unwrap()
    }

    #[test]
    fn tiles_lie_where_they_belong_and_frames_around_them() {
        // 2x1 pixels, black and grey, become 12x6 in the middle of a square of 12.
        let image = Image::new(2, 1, vec![0, 0, 0, 90, 90, 90]).unwrap();
        let wide = Tile { image, frame: None };
        let rows = vec![
            vec![wide, tile(1, 1, 7, Some(RED))],
            vec![tile(5, 5, 9, None)],
        ];
        let grid = picture_grid(&rows, 12).unwrap();
        assert_eq!((grid.width(), grid.height()), (10 + 2 * 22, 10 + 2 * 22));
        // The first tile begins at 10; its image at 10, 13.
        assert_eq!([at(&grid, 10, 13), at(&grid, 15, 18)], [[0; 3]; 2]);
        assert_eq!([at(&grid, 16, 13), at(&grid, 21, 18)], [[90; 3]; 2]);
        assert_eq!([at(&grid, 10, 12), at(&grid, 16, 19)], [WHITE; 2]);
        // The second begins at 32 and has its frame outside.
        assert_eq!([at(&grid, 32, 10), at(&grid, 43, 21)], [[7; 3]; 2]);
        let frame = [at(&grid, 29, 7), at(&grid, 46, 24), at(&grid, 31, 14)];
        assert_eq!(frame, [RED; 3]);
        assert_eq!([at(&grid, 28, 10), at(&grid, 47, 21)], [WHITE; 2]);
        assert_eq!([at(&grid, 10, 32), at(&grid, 21, 43)], [[9; 3]; 2]);
        // The second row has no second tile.
        assert_eq!(at(&grid, 38, 38), WHITE);
    }

    #[test]
    fn large_images_shrink_and_thin_ones_stay_visible() {
        let grid = picture_grid(&[vec![tile(1000, 3, 50, None)]], 10).unwrap();
        let dark = grid.pixels().chunks(3).filter(|pixel| **pixel == [50; 3]);
        assert_eq!(dark.count(), 10);
    }

    #[test]
    fn a_png_is_read_back_and_impossible_grids_are_refused() {
        let rows = vec![vec![tile(3, 3, 80, Some(RED)), tile(4, 2, 20, None)]];
        let grid = picture_grid(&rows, 16).unwrap();
        let read = eqco_data::decode::decode(&png(&grid).unwrap(), "grid").unwrap();
        assert_eq!(read, grid);
        for (rows, side) in [
            (vec![], 5),
            (vec![vec![]], 5),
            (rows.clone(), 0),
            (rows, 1 << 20),
        ] {
            let error = picture_grid(&rows, side).unwrap_err().to_string();
            assert!(error.starts_with("picture: expected at "), "{error}");
        }
    }
}
