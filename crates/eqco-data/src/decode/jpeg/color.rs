//! From planes to RGB, to the bit as libjpeg does: colour planes of lower resolution are enlarged by a triangle filter
//! (`jdsample.c`, "fancy upsampling"), colours are converted by 16-bit fixed point (`jdcolor.c`).

use std::ops::Range;

use super::header::Header;
use super::scan::Plane;
use crate::augment::Region;
use crate::lanes::vectorized;

/// Rows of colour at full resolution, and what they are interpolated from.
#[derive(Debug, Default)]
pub(super) struct ColorScratch {
    blue: Vec<u8>,
    red: Vec<u8>,
    weighted: Vec<u16>,
}

/// Writes the pixels of `needed` to `out`, RGB, `[height, width, 3]`.
pub(super) fn convert(
    header: &Header<'_>,
    planes: &[Plane; 3],
    needed: Region,
    scratch: &mut ColorScratch,
    out: &mut [u8],
) {
    let [first, blue, red] = planes;
    let rows = out.chunks_exact_mut(needed.width * 3).enumerate();
    if header.components.len() == 1 {
        for (row, target) in rows {
            let grey = first.row(needed.top + row, needed.left..needed.left + needed.width);
            for (pixel, &value) in target.as_chunks_mut::<3>().0.iter_mut().zip(grey) {
                *pixel = [value; 3];
            }
        }
        return;
    }
    let scale = Scale {
        across: header.components[0].across,
        down: header.components[0].down,
        width: header.width,
        height: header.height,
    };
    for (row, target) in rows {
        let y = needed.top + row;
        let columns = needed.left..needed.left + needed.width;
        let luminance = first.row(y, columns.clone());
        vectorized(
            #[inline(always)]
            || {
                let ColorScratch {
                    blue: blues,
                    red: reds,
                    weighted,
                } = scratch;
                let blues = scale.enlarged(blue, y, columns.clone(), weighted, blues);
                let reds = scale.enlarged(red, y, columns.clone(), weighted, reds);
                if header.is_rgb {
                    interleave(luminance, blues, reds, target);
                } else {
                    to_rgb(luminance, blues, reds, target);
                }
            },
        );
    }
}

impl Plane {
    /// Pixels of row `y` of the component.
    #[inline(always)]
    fn row(&self, y: usize, columns: Range<usize>) -> &[u8] {
        let start = (y - self.top) * self.stride + columns.start - self.left;
        &self.pixels[start..start + columns.len()]
    }
}

/// How the colour planes lie below the image.
struct Scale {
    across: usize,
    down: usize,
    /// Of the image.
    width: usize,
    height: usize,
}

impl Scale {
    /// A row of a colour plane at the resolution of the image, `columns` of it; `weighted` and `memory` are working memory.
    #[inline(always)]
    fn enlarged<'a>(
        &self,
        plane: &'a Plane,
        y: usize,
        columns: Range<usize>,
        weighted: &mut Vec<u16>,
        memory: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        if (self.across, self.down) == (1, 1) {
            return plane.row(y, columns);
        }
        let inside = columns.start / self.across..columns.end.div_ceil(self.across);
        let skipped = columns.start - inside.start * self.across;
        memory.resize(inside.len() * self.across, 0);
        // libjpeg does not interpolate other scales, nor rows of one or two pixels.
        let whole = self.width.div_ceil(self.across);
        if self.across > 2 || self.down > 2 || self.across == 2 && whole <= 2 {
            let row = plane.row(y / self.down, inside);
            for (pixels, &value) in memory.chunks_exact_mut(self.across).zip(row) {
                pixels.fill(value);
            }
            return &memory[skipped..][..columns.len()];
        }
        // One more on either side; the outermost ones are repeated beyond the edge.
        let reach = inside.start.saturating_sub(1)..(inside.end + 1).min(whole);
        let near = plane.row(y / self.down, reach.clone());
        weighted.clear();
        weighted.extend((inside.start == 0).then_some(0));
        if self.down == 2 {
            let far = plane.row(self.neighbour(y), reach);
            weighted.extend(
                near.iter()
                    .zip(far)
                    .map(|(&near, &far)| u16::from(near) * 3 + u16::from(far)),
            );
        } else {
            weighted.extend(near.iter().copied().map(u16::from));
        }
        if inside.start == 0 {
            weighted[0] = weighted[1];
        }
        if inside.end == whole {
            weighted.extend_from_within(weighted.len() - 1..);
        }
        match (self.across, self.down) {
            (2, 1) => in_pairs::<1, 2, 2>(weighted, memory),
            (2, _) => in_pairs::<8, 7, 4>(weighted, memory),
            _ => {
                // Above it is rounded down, below up.
                let bias = 1 + (y % 2) as u16;
                for (value, &sum) in memory.iter_mut().zip(&weighted[1..]) {
                    *value = ((sum + bias) >> 2) as u8;
                }
            }
        }
        &memory[skipped..][..columns.len()]
    }

    /// The next row of the colour plane on the side on which `y` lies.
    fn neighbour(&self, y: usize) -> usize {
        let row = y / 2;
        if y.is_multiple_of(2) {
            row.saturating_sub(1)
        } else {
            (row + 1).min(self.height.div_ceil(2) - 1)
        }
    }
}

/// Twice as many pixels, each of three parts of the nearer and one of the farther one; what is added before rounding differs.
#[inline(always)]
fn in_pairs<const LEFT: u16, const RIGHT: u16, const SHIFT: u16>(weighted: &[u16], out: &mut [u8]) {
    let pairs = out.as_chunks_mut::<2>().0;
    let count = pairs.len();
    let (before, middle, after) = (
        &weighted[..count],
        &weighted[1..][..count],
        &weighted[2..][..count],
    );
    for index in 0..count {
        let near = middle[index] * 3;
        pairs[index] = [
            ((near + before[index] + LEFT) >> SHIFT) as u8,
            ((near + after[index] + RIGHT) >> SHIFT) as u8,
        ];
    }
}

/// YCbCr to RGB (JFIF): constants of 16 fraction bits.
#[inline(always)]
fn to_rgb(luminance: &[u8], blues: &[u8], reds: &[u8], out: &mut [u8]) {
    const HALF: i32 = 1 << 15;
    let pixels = out.as_chunks_mut::<3>().0;
    let count = pixels.len();
    let (luminance, blues, reds) = (&luminance[..count], &blues[..count], &reds[..count]);
    for index in 0..count {
        let y = i32::from(luminance[index]);
        let (blue, red) = (i32::from(blues[index]) - 128, i32::from(reds[index]) - 128);
        pixels[index] = [
            y + ((91_881 * red + HALF) >> 16),
            y + ((-22_554 * blue - 46_802 * red + HALF) >> 16),
            y + ((116_130 * blue + HALF) >> 16),
        ]
        .map(|value| value.clamp(0, 255) as u8);
    }
}

#[inline(always)]
fn interleave(reds: &[u8], greens: &[u8], blues: &[u8], out: &mut [u8]) {
    let planes = reds.iter().zip(greens).zip(blues);
    for (pixel, ((&red, &green), &blue)) in out.as_chunks_mut().0.iter_mut().zip(planes) {
        *pixel = [red, green, blue];
    }
}
