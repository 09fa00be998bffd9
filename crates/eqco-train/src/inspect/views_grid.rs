//! A picture of images beside the views that training makes of them.

use std::sync::Arc;

use anyhow::{Context, Result};
use eqco_data::augment::{Scratch, resize};
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig};
use eqco_data::{DataError, Dataset, Image};
use eqco_eval::{GridGeometry, Tile, picture_grid};
use serde::Serialize;

/// Colour (RGB) around query views.
const QUERY_FRAME: [u8; 3] = [0, 114, 178];
/// Colour (RGB) around key views.
const KEY_FRAME: [u8; 3] = [230, 159, 0];

/// Pictures are at least about so many pixels wide.
const TILE: usize = 96;

/// What is in a grid of views.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DrawnViews {
    /// The recipe, with all of its values.
    pub recipe: RecipeConfig,
    /// Seed of order and views.
    pub seed: u64,
    /// Path or id of each image, top to bottom.
    pub images: Vec<String>,
}

/// Draws the first images of the first epoch of a run, at most `count`, a row each: the whole image, then its query view and
/// its key view in that epoch, in frames of two colours. Order and views are those of a run on the same images with the same
/// `seed`, whatever its other settings. For an unreadable image another one is drawn.
///
/// # Errors
/// [`DataError::InvalidSetting`] for a recipe out of range, [`DataError::TooManyBadImages`] if no image can be read, and
/// those of a picture that is too large.
pub fn views_grid(
    dataset: &Arc<dyn Dataset>,
    recipe: &RecipeConfig,
    seed: u64,
    count: usize,
) -> Result<(Image, DrawnViews)> {
    let recipe = Recipe::new(recipe.clone())?;
    let size = recipe.image_size();
    // Whole multiples, so that all pixels of a small view have one size.
    let side = size * TILE.div_ceil(size);
    let config = LoaderConfig {
        batch_size: count.min(dataset.len()),
        workers: 1,
        seed,
        // What is there is shown; whether it is enough for a run is another question.
        max_bad_share: 1.0,
        ..Default::default()
    };
    let loader = Loader::new(Arc::clone(dataset), vec![recipe.clone(); 2], config)?;
    let batch = loader
        .epoch(0, 0)
        .next()
        .context("the loader gave no batch")??;
    let views = batch.views()?;
    let view = |which: usize, row: usize| {
        let bytes = size * size * 3;
        Image::new(size, size, views[which][row * bytes..][..bytes].to_vec())
    };
    let mut rows = Vec::new();
    for (row, &index) in batch.indices.iter().enumerate() {
        let original = in_square(&dataset.image(index as usize)?, side)?;
        rows.push(vec![
            tile(original, None),
            tile(view(0, row)?, Some(QUERY_FRAME)),
            tile(view(1, row)?, Some(KEY_FRAME)),
        ]);
    }
    let geometry = GridGeometry {
        side,
        frame: 3,
        column_gap: 4,
        row_gap: 4,
    };
    let described = batch
        .indices
        .iter()
        .map(|&index| dataset.describe(index as usize));
    let drawn = DrawnViews {
        recipe: recipe.config().clone(),
        seed,
        images: described.collect(),
    };
    Ok((picture_grid(&rows, geometry)?, drawn))
}

fn tile(image: Image, frame: Option<[u8; 3]>) -> Tile {
    Tile { image, frame }
}

/// The whole image in the middle of a white square, reduced to `side` pixels if it is larger: crops come from its edges, too.
fn in_square(image: &Image, side: usize) -> Result<Image, DataError> {
    let longer = image.width().max(image.height());
    let scaled = |length: usize| match longer > side {
        true => (length * side / longer).max(1),
        false => length,
    };
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    let mut pixels = vec![0; width * height * 3];
    resize(image, (width, height), &mut Scratch::default(), &mut pixels);
    let square = longer.min(side);
    let (left, top) = ((square - width) / 2, (square - height) / 2);
    let mut canvas = vec![255; square * square * 3];
    let rows = canvas.chunks_exact_mut(square * 3).skip(top);
    for (target, row) in rows.zip(pixels.chunks_exact(width * 3)) {
        target[left * 3..][..row.len()].copy_from_slice(row);
    }
    Image::new(square, square, canvas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_shown_whole_on_white() {
        let wide = Image::from_grey(4, 1, &[10, 20, 30, 40]).unwrap();
        let square = in_square(&wide, 8).unwrap();
        assert_eq!((square.width(), square.height()), (4, 4));
        let grey: Vec<u8> = square.pixels().iter().step_by(3).copied().collect();
        assert_eq!(grey[..4], [255; 4]);
        assert_eq!(grey[4..8], [10, 20, 30, 40]);
        assert_eq!(grey[8..], [255; 8]);

        let reduced = in_square(&wide, 2).unwrap();
        let grey: Vec<u8> = reduced.pixels().iter().step_by(3).copied().collect();
        assert_eq!((reduced.width(), &grey[2..]), (2, &[255; 2][..]));
        assert!(grey[0] < 25 && grey[1] > 25, "{grey:?}");
    }
}
