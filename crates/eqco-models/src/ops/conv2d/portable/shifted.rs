//! Convolution of stride 1 on tile registers, without patches.
//!
//! Zero-padded images lie one behind the other on one grid, on which neighbours share their padding. Every place of the
//! grid is taken for an output: what a tap of the kernel reads for all of them is then the grid itself, shifted by a
//! constant, and the rows of a tile are neighbouring places. Outputs in the padding are dropped (6 % of them for maps of 32
//! pixels, 21 % for 8). Copying patches would take as long as tiles take to multiply them.

use std::marker::PhantomData;

use rayon::prelude::*;

use super::super::Geometry;
use super::shares::sum_of_shares;
use crate::ops::element::Element;
use crate::ops::factor::Factor;
use crate::ops::lanes::{has_tiles, vectorized};
use crate::ops::product::panels::{Order, Weights, panels_len};
use crate::ops::product::tiles::{Places, RunProduct, TILE, transpose};
use crate::ops::product::{Left, PANEL, Product, Right};
use crate::ops::scratch::with_scratch;

/// Channels that a place must have a multiple of.
const CHANNELS: usize = 16;
/// On smaller maps too much of the grid is padding (measured).
const LEAST_WIDTH: usize = 8;
/// Bytes of a grid that stays in the second-level cache beside the weights.
const GRID_BYTES: usize = 1 << 18;

/// Whether these kernels are meant for a convolution of `T`.
pub fn suits<T: Element>(geometry: &Geometry) -> bool {
    T::Factor::DEPTH > 1
        && has_tiles()
        && geometry.stride == 1
        && geometry.kernel > 1
        && geometry.kernel == 2 * geometry.padding + 1
        && geometry.in_channels.is_multiple_of(CHANNELS)
        && geometry.out_channels.is_multiple_of(CHANNELS)
        && geometry.width >= LEAST_WIDTH
}

/// `y (+)= conv(x, w)`.
pub fn forward<T: Element>(geometry: &Geometry, x: &[T], w: &[f32], y: &mut [T], accumulate: bool) {
    let Geometry {
        kernel,
        in_channels,
        ..
    } = *geometry;
    let grid = Grid::new(geometry, in_channels);
    let taps = grid.taps();
    // Each line of taps is filled up with zeros.
    let mut widened = Vec::new();
    let values = if taps == kernel {
        w
    } else {
        widened.resize(w.len() / kernel * taps, 0.0);
        let lines = widened.chunks_exact_mut(taps * in_channels);
        for (line, source) in lines.zip(w.chunks_exact(kernel * in_channels)) {
            line[..source.len()].copy_from_slice(source);
        }
        &widened
    };
    let weights = Weights {
        values,
        columns: geometry.out_channels,
        order: Order::Columns(kernel * taps * in_channels),
    };
    convolve(&grid, weights, x, y, accumulate);
}

/// `dx (+)= ` gradient with respect to the input: the convolution of the output's gradient with the kernel turned by 180°.
pub fn backward_data<T: Element>(
    geometry: &Geometry,
    dy: &[T],
    w: &[f32],
    dx: &mut [T],
    accumulate: bool,
) {
    let Geometry {
        kernel,
        in_channels,
        out_channels,
        ..
    } = *geometry;
    let grid = Grid::new(geometry, out_channels);
    let taps = grid.taps();
    let mut extended = Vec::new();
    let values = if taps == kernel {
        w
    } else {
        extended.extend_from_slice(w);
        extended.resize(w.len() + in_channels, 0.0);
        &extended
    };
    let mut places = Vec::with_capacity(kernel * taps * out_channels);
    for y in (0..kernel).rev() {
        for tap in 0..taps {
            let place = |output: usize| match kernel.checked_sub(tap + 1) {
                Some(x) => ((output * kernel + y) * kernel + x) * in_channels,
                None => w.len(),
            };
            places.extend((0..out_channels).map(place));
        }
    }
    let weights = Weights {
        values,
        columns: in_channels,
        order: Order::Rows(&places),
    };
    convolve(&grid, weights, dy, dx, accumulate);
}

/// `weights.columns` channels for every pixel of the source.
fn convolve<T: Element>(
    grid: &Grid,
    weights: Weights<'_>,
    source: &[T],
    target: &mut [T],
    accumulate: bool,
) {
    let channels = weights.columns;
    let inner = grid.kernel() * grid.taps() * grid.channels / T::Factor::DEPTH;
    let images = grid.images_of_a_task::<T>(source.len() / grid.image());
    let pixels = grid.height * grid.width;
    with_scratch(
        panels_len::<T::Factor>(inner * T::Factor::DEPTH, channels),
        |panels| {
            weights.pack::<T::Factor>(panels);
            let panels = &*panels;
            target
                .par_chunks_mut(images * pixels * channels)
                .zip(source.par_chunks(images * grid.image()))
                .for_each(|(target, source)| {
                    let images = source.len() / grid.image();
                    let place = grid.channels / T::Factor::DEPTH;
                    with_scratch(grid.len(images) * place, |words| {
                        grid.fill(source, T::Factor::of_words(words));
                        let lines: Vec<usize> = (0..grid.kernel())
                            .map(|line| line * grid.pitch() * place)
                            .collect();
                        RunProduct {
                            product: Product {
                                rows: images * grid.places(),
                                inner,
                                columns: channels,
                                left: Left {
                                    words,
                                    row_stride: place,
                                    column_stride: 1,
                                },
                                right: Right::panels(panels, inner),
                                target,
                                target_stride: channels,
                                accumulate,
                                factor: PhantomData::<T::Factor>,
                            },
                            runs: &lines,
                            place: *grid,
                        }
                        .run();
                    });
                });
        },
    );
}

/// `dw (+)= ` gradient with respect to the weights: for every tap a product of the output's gradient with the shifted grid,
/// summed over pairs of places.
pub fn backward_weight<T: Element>(
    geometry: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    let x_grid = Grid::new(geometry, geometry.in_channels);
    let dy_grid = Grid::new(geometry, geometry.out_channels);
    let images = x_grid.images_of_a_task::<f32>(geometry.batch);
    sum_of_shares(geometry.batch, dw, accumulate, |share, gradient| {
        if share.is_empty() {
            gradient.fill(0.0);
        }
        for first in share.clone().step_by(images) {
            let images = first..(first + images).min(share.end);
            let [x, dy] = [(x, &x_grid), (dy, &dy_grid)]
                .map(|(v, grid)| &v[images.start * grid.image()..images.end * grid.image()]);
            // Pairs of places, filled up to whole tiles.
            let pairs = (images.len() * x_grid.places())
                .div_ceil(2)
                .next_multiple_of(TILE);
            let gradient_words = pairs * geometry.out_channels;
            let source_words = (2 * pairs + 2 * x_grid.lead()) * geometry.in_channels;
            with_scratch(gradient_words + source_words, |scratch| {
                let (left, right) = scratch.split_at_mut(gradient_words);
                dy_grid.pairs_by_channel(dy, pairs, left);
                x_grid.pairs(x, right);
                add_products::<T::Factor>(&x_grid, left, right, gradient, first != share.start);
            });
        }
    });
}

/// `gradient (+)= left · right`, where `left` is `[channels, pairs]` words of the output's gradient and `right` one row of
/// words for every place: a pair of it and the next one.
fn add_products<F: Factor>(
    grid: &Grid,
    left: &[f32],
    right: &[f32],
    gradient: &mut [f32],
    accumulate: bool,
) {
    let line = grid.kernel() * grid.channels;
    let patch = grid.kernel() * line;
    let channels = gradient.len() / patch;
    let pairs = left.len() / channels;
    for index in 0..grid.kernel() {
        Product {
            rows: channels,
            inner: pairs,
            columns: line,
            left: Left {
                words: left,
                row_stride: pairs,
                column_stride: 1,
            },
            // The taps of a line of the kernel read neighbouring places.
            right: Right {
                words: &right[index * grid.pitch() * grid.channels..],
                row_stride: 2 * grid.channels,
                panel_stride: PANEL,
            },
            target: &mut gradient[index * line..],
            target_stride: patch,
            accumulate,
            factor: PhantomData::<F>,
        }
        .run();
    }
}

/// Where images lie: each has `padding` places beyond every line, and `padding` lines beyond its last. As many lines and
/// places of padding come before the first image.
#[derive(Clone, Copy)]
struct Grid {
    height: usize,
    width: usize,
    padding: usize,
    channels: usize,
}

impl Grid {
    fn new(geometry: &Geometry, channels: usize) -> Self {
        Self {
            height: geometry.height,
            width: geometry.width,
            padding: geometry.padding,
            channels,
        }
    }

    fn kernel(&self) -> usize {
        2 * self.padding + 1
    }

    /// Taps of a line of the kernel: what they read is whole tiles.
    fn taps(&self) -> usize {
        let tile = 2 * TILE;
        let whole = |taps: &usize| (taps * self.channels).is_multiple_of(tile);
        (self.kernel()..).find(whole).unwrap_or(self.kernel())
    }

    /// Elements of a source image.
    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Places of a line.
    fn pitch(&self) -> usize {
        self.width + self.padding
    }

    /// Places of an image.
    fn places(&self) -> usize {
        (self.height + self.padding) * self.pitch()
    }

    /// Places before the first image.
    fn lead(&self) -> usize {
        self.padding * (self.pitch() + 1)
    }

    /// Places of so many images and of all that taps read around them.
    fn len(&self, images: usize) -> usize {
        2 * self.lead() + images * self.places() + self.taps() - self.kernel()
    }

    /// Images whose grid stays in cache, at most an even share.
    fn images_of_a_task<T: Element>(&self, images: usize) -> usize {
        let bytes = self.places() * self.channels * size_of::<T>();
        let even_share = images.div_ceil(rayon::current_num_threads());
        (GRID_BYTES / bytes).clamp(1, even_share.max(1))
    }

    /// Copies images to the grid, all of which is written.
    fn fill<T: Element>(&self, source: &[T], grid: &mut [T::Factor]) {
        vectorized(
            #[inline(always)]
            || {
                let line = self.pitch() * self.channels;
                let image = self.places() * self.channels;
                let (lead, images) = grid.split_at_mut(self.lead() * self.channels);
                lead.fill(T::Factor::ZERO);
                let mut images = images.chunks_exact_mut(image);
                for source in source.chunks_exact(self.image()) {
                    let Some(image) = images.next() else { break };
                    let (lines, padding) = image.split_at_mut(self.height * line);
                    let pixels = source.chunks_exact(self.width * self.channels);
                    for (line, pixels) in lines.chunks_exact_mut(line).zip(pixels) {
                        let (inside, outside) = line.split_at_mut(pixels.len());
                        T::copy_factors(pixels, inside);
                        outside.fill(T::Factor::ZERO);
                    }
                    padding.fill(T::Factor::ZERO);
                }
                for image in images.by_ref() {
                    image.fill(T::Factor::ZERO);
                }
                images.into_remainder().fill(T::Factor::ZERO);
            },
        );
    }
}

/// Grids as pairs of neighbouring places, which a word holds.
impl Grid {
    /// One row of words for every place.
    fn pairs<T: Element>(&self, source: &[T], words: &mut [f32]) {
        let count = words.len() + self.channels;
        with_scratch(count.div_ceil(T::Factor::DEPTH), |grid| {
            let grid = &mut T::Factor::of_words(grid)[..count];
            self.fill(source, grid);
            let next = &grid[self.channels..];
            vectorized(
                #[inline(always)]
                || T::Factor::interleave([grid, next], words),
            );
        });
    }

    /// `[channels, pairs]` words of the places from the first image on.
    fn pairs_by_channel<T: Element>(&self, source: &[T], pairs: usize, words: &mut [f32]) {
        let channels = self.channels;
        let places = self.lead() + 2 * pairs;
        with_scratch(
            (places * channels).div_ceil(2) + pairs * channels,
            |scratch| {
                let (grid, interleaved) = scratch.split_at_mut((places * channels).div_ceil(2));
                let grid = &mut T::Factor::of_words(grid)[..places * channels];
                self.fill(source, grid);
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = grid[self.lead() * channels..].chunks_exact(2 * channels);
                        for (row, words) in rows.zip(interleaved.chunks_exact_mut(channels)) {
                            let (first, second) = row.split_at(channels);
                            T::Factor::interleave([first, second], words);
                        }
                    },
                );
                let by_pair = Left {
                    words: interleaved,
                    row_stride: 1,
                    column_stride: channels,
                };
                transpose(&by_pair, channels, pairs, pairs, words);
            },
        );
    }
}

/// Pixels in the order of their places.
impl Places for Grid {
    const ARE_ROWS: bool = false;

    #[inline(always)]
    fn from(self, first: usize) -> impl Iterator<Item = Option<usize>> {
        let (image, rest) = (first / self.places(), first % self.places());
        let (mut y, mut x) = (rest / self.pitch(), rest % self.pitch());
        let mut start = image * self.height * self.width;
        std::iter::from_fn(move || {
            let is_inside = x < self.width && y < self.height;
            let place = is_inside.then_some(start + y * self.width + x);
            x += 1;
            if x == self.pitch() {
                (x, y) = (0, y + 1);
            }
            if y == self.height + self.padding {
                (y, start) = (0, start + self.height * self.width);
            }
            Some(place)
        })
    }
}
