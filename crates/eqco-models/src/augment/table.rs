//! The views as kernels want them: a table of words, and places in scratch memory.

use std::ops::Range;

use candle_core::{Result, bail};

use super::source::Place;
use super::view::{MOST_ADJUSTMENTS, View};

/// Words of a row, those of `View` in `view.cuh`.
const ROW_WORDS: usize = 17 + 2 * MOST_ADJUSTMENTS;
/// Scratch memory that a group of views fills, in words: 64 MiB, of which the second-level cache of a large GPU holds most. More
/// is used only where a single view needs it.
const GROUP_WORDS: usize = 1 << 24;
/// More words are refused: places and pixels in them have 32 bits.
const MOST_WORDS: usize = 1 << 31;
/// Views of a group, which are blocks along one side of a grid.
const MOST_IN_GROUP: usize = 1 << 14;

/// The views of a batch, in groups that share scratch memory one after the other.
#[derive(Debug)]
pub(super) struct Table {
    /// A row for each view, then the weights of all blurs.
    pub(super) words: Vec<u32>,
    pub(super) groups: Vec<Group>,
}

/// Neighbouring views that are made at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) views: Range<usize>,
    /// Pixels between the passes of a resize, of the largest crop.
    pub(super) most_between: usize,
    /// Whether any view is blurred.
    pub(super) is_blurred: bool,
    scratch_words: usize,
}

impl Table {
    /// A row for each of `views`, which have been checked, of the images at `places`.
    ///
    /// # Errors
    /// When a view needs more scratch memory than can be addressed.
    pub(super) fn new(views: &[View], places: &[Place], image_size: usize) -> Result<Self> {
        let mut words = Vec::with_capacity(views.len() * ROW_WORDS);
        let mut kernels = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for (number, (view, place)) in views.iter().zip(places).enumerate() {
            let scratch = Scratch::of(view, image_size);
            if scratch.end > MOST_WORDS {
                bail!(
                    "view {number}: its {:?} at {image_size} pixels needs {} bytes of scratch memory, more than 8 GiB",
                    view.crop,
                    scratch.end * 4
                );
            }
            let start =
                Group::with_room(&mut groups, number, &scratch).add(view, &scratch, image_size);
            let kernel = views.len() * ROW_WORDS + kernels.len();
            words.extend(row(view, place, &scratch, start, kernel));
            kernels.extend(view.half_kernel.iter().map(|weight| weight.to_bits()));
        }
        words.append(&mut kernels);
        Ok(Self { words, groups })
    }

    /// Number of views.
    pub(super) fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.views.end)
    }

    /// Words of scratch memory for any of the groups; a power of two, so that few sizes occur.
    pub(super) fn scratch_words(&self) -> usize {
        let most = self.groups.iter().map(|group| group.scratch_words).max();
        most.unwrap_or(0).next_power_of_two()
    }
}

impl Group {
    /// The last group if it has room for one more view, else a new one.
    fn with_room<'a>(groups: &'a mut Vec<Self>, number: usize, scratch: &Scratch) -> &'a mut Self {
        let has_room = groups.last().is_some_and(|group| {
            group.views.len() < MOST_IN_GROUP && group.scratch_words + scratch.end <= GROUP_WORDS
        });
        if !has_room {
            groups.push(Self {
                views: number..number,
                most_between: 0,
                is_blurred: false,
                scratch_words: 0,
            });
        }
        let last = groups.len() - 1;
        &mut groups[last]
    }

    /// One more view; where its scratch memory begins.
    fn add(&mut self, view: &View, scratch: &Scratch, image_size: usize) -> usize {
        let start = self.scratch_words;
        self.views.end += 1;
        self.most_between = self.most_between.max(view.crop.height * image_size);
        self.is_blurred |= view.half() > 0;
        self.scratch_words += scratch.end;
        start
    }
}

/// Where the pieces of one view's scratch memory begin, in words from its first.
struct Scratch {
    columns: usize,
    rows: usize,
    between: usize,
    pixels: usize,
    blurred: usize,
    /// Behind the one word of the luminance.
    end: usize,
}

impl Scratch {
    fn of(view: &View, image_size: usize) -> Self {
        let rgb_words = |pixels: usize| (pixels * 3).div_ceil(size_of::<u32>());
        let area = image_size * image_size;
        let columns = 0;
        let rows = columns + axis_words(view.crop.width, image_size);
        let between = rows + axis_words(view.crop.height, image_size);
        let pixels = between + rgb_words(view.crop.height * image_size);
        let blurred = pixels + rgb_words(area);
        let luminance = blurred + if view.half() > 0 { area * 3 } else { 0 };
        Self {
            columns,
            rows,
            between,
            pixels,
            blurred,
            end: luminance + 1,
        }
    }

    fn luminance(&self) -> usize {
        self.end - 1
    }
}

/// Of the table of weights that resample `input` pixels to `output`: two words and the weights for each place.
fn axis_words(input: usize, output: usize) -> usize {
    // A triangle that reaches as far as the scale, or one pixel, to either side.
    let most_weights = input.min(2 * input.div_ceil(output) + 1);
    output * (2 + most_weights)
}

/// The row of a view whose scratch memory begins at `start`, with the weights of its blur at `kernel`.
fn row(
    view: &View,
    place: &Place,
    scratch: &Scratch,
    start: usize,
    kernel: usize,
) -> impl Iterator<Item = u32> {
    let crop = view.crop;
    let source = [place.first_pixel, place.width];
    let numbers = [
        crop.left,
        crop.top,
        crop.width,
        crop.height,
        start + scratch.columns,
        start + scratch.rows,
        start + scratch.between,
        start + scratch.pixels,
        start + scratch.luminance(),
        start + scratch.blurred,
        kernel,
        view.half(),
    ];
    let choices = [
        view.solarize_word(),
        u32::from(view.flip),
        u32::from(view.grayscale),
    ];
    let mut kinds = [0; MOST_ADJUSTMENTS];
    let mut factors = [0; MOST_ADJUSTMENTS];
    for (place, adjustment) in view.adjustments.iter().enumerate() {
        [kinds[place], factors[place]] = adjustment.words();
    }
    source
        .into_iter()
        .chain(numbers.map(|number| number as u32))
        .chain(choices)
        .chain(kinds)
        .chain(factors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::Adjustment;

    const PLACE: Place = Place {
        first_pixel: 17,
        width: 500,
        height: 400,
    };

    fn view() -> View {
        View {
            adjustments: vec![Adjustment::Hue(250), Adjustment::Contrast(0.5)],
            half_kernel: vec![0.5, 0.25],
            solarize: Some(128),
            ..View::whole((500, 400))
        }
    }

    #[test]
    fn a_row_lies_in_memory_as_the_structure_of_the_kernels() -> Result<()> {
        let table = Table::new(&[view(), View::whole((500, 400))], &[PLACE; 2], 224)?;
        let (first, rest) = table.words.split_at(ROW_WORDS);
        // 500 to 224 pixels: 2 * 3 + 1 weights. 400 to 224: 2 * 2 + 1.
        let (rows, between) = (224 * 9, 224 * 9 + 224 * 7);
        let pixels = between + 400 * 224 * 3 / 4;
        let blurred = pixels + 224 * 224 * 3 / 4;
        let luminance = blurred + 224 * 224 * 3;
        let expected = [
            17, 500, 0, 0, 500, 400, 0, rows, between, pixels, luminance, blurred,
        ];
        assert_eq!(first[..12], expected.map(|word| word as u32));
        let kernel = 2 * ROW_WORDS as u32;
        assert_eq!(first[12..17], [kernel, 1, 128, 0, 0]);
        assert_eq!(first[17..], [4, 2, 0, 0, 250, 0.5f32.to_bits(), 0, 0]);
        // The second one begins where the first one ends, and is not blurred.
        assert_eq!(rest[6], luminance as u32 + 1);
        assert_eq!(rest[13..15], [0, 256]);
        assert_eq!(
            table.words[2 * ROW_WORDS..],
            [0.5f32.to_bits(), 0.25f32.to_bits()]
        );
        Ok(())
    }

    #[test]
    fn groups_fill_their_memory_and_no_more() -> Result<()> {
        let words = Scratch::of(&view(), 224).end;
        let table = Table::new(&vec![view(); 300], &[PLACE; 300], 224)?;
        let fit = GROUP_WORDS / words;
        let ranges: Vec<_> = table
            .groups
            .iter()
            .map(|group| group.views.clone())
            .collect();
        assert_eq!(ranges[..2], [0..fit, fit..2 * fit]);
        assert_eq!(ranges.last().map(|range| range.end), Some(300));
        assert_eq!(table.scratch_words(), GROUP_WORDS);
        assert_eq!(table.groups[0].most_between, 400 * 224);
        // Small views: their number is bound, and memory is not.
        let tiny = Table::new(
            &vec![View::whole((1, 1)); MOST_IN_GROUP + 1],
            &[PLACE; MOST_IN_GROUP + 1],
            1,
        )?;
        assert_eq!(tiny.groups.len(), 2);
        assert!(!tiny.groups[0].is_blurred && table.groups[0].is_blurred);
        // One that is larger than a group is one by itself.
        let mut high = View::whole((1, 40_000));
        high.half_kernel.clear();
        let large = Table::new(&vec![high; 2], &[PLACE; 2], 1024)?;
        assert_eq!(large.groups.len(), 2);
        assert!(large.scratch_words() > GROUP_WORDS);
        let message = Table::new(&[View::whole((1, 3_000_000))], &[PLACE], 4096)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("more than 8 GiB") && message.contains("view 0"),
            "{message}"
        );
        Ok(())
    }

    #[test]
    fn no_table_of_weights_is_shorter_than_what_is_written_to_it() {
        for input in [1, 2, 3, 7, 31, 224, 499, 500, 4000] {
            for output in [1, 2, 7, 32, 33, 65, 224] {
                // As the kernel counts.
                let scale = input as f64 / output as f64;
                let stretch = scale.max(1.0);
                let most = (0..output).map(|place| {
                    let center = (place as f64 + 0.5) * scale;
                    let first = (center - stretch + 0.5).max(0.0) as usize;
                    ((center + stretch + 0.5) as usize).min(input) - first
                });
                let room = axis_words(input, output) / output - 2;
                assert!(most.max() <= Some(room), "{input} to {output}: {room}");
            }
        }
    }
}
