//! The scan of a baseline file: from bits to the planes of its components, as far as they are needed.

use std::ops::Range;

use memchr::memchr;

use super::header::{Component, Header};
use super::huffman::{Bits, END_OF_BLOCK, Table};
use super::idct;
use crate::augment::Region;

/// Where the k-th coefficient of a scan belongs in its block, row by row.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

const MISSING: &str = "truncated: the data end before the last pixel that is needed";

/// Memory that is used again from image to image.
#[derive(Debug, Default)]
pub(super) struct ScanScratch {
    tables: [[Table; 4]; 2],
    /// The scan without stuffing, and the parts of it between restart markers.
    data: Vec<u8>,
    parts: Vec<Range<usize>>,
    /// What was decoded of each component.
    pub(super) planes: [Plane; 3],
}

/// Some of the pixels of one component, in whole MCUs.
#[derive(Debug, Default)]
pub(super) struct Plane {
    pub(super) pixels: Vec<u8>,
    pub(super) stride: usize,
    /// Position of its first pixel in the component.
    pub(super) left: usize,
    pub(super) top: usize,
}

/// The MCUs that are needed, and those in a row.
#[derive(Debug)]
struct Window {
    columns: Range<usize>,
    rows: Range<usize>,
    across: usize,
}

/// How to read one block of a component.
struct BlockReader<'a> {
    dc: &'a Table,
    ac: &'a Table,
    /// Position in the block and divisor, in the order of the zigzag.
    steps: [(u8, i16); 64],
}

impl Window {
    /// The MCUs with the pixels in `needed`, and with the neighbours from which colours are interpolated.
    fn around(header: &Header<'_>, needed: Region) -> Self {
        let [first, ..] = header.components[..] else {
            return Self {
                columns: 0..0,
                rows: 0..0,
                across: 0,
            };
        };
        let range = |start: usize, length: usize, blocks: usize, whole: usize| {
            let side = blocks * 8;
            let end = (start + length + blocks).min(whole).div_ceil(side);
            start.saturating_sub(blocks) / side..end
        };
        Self {
            columns: range(needed.left, needed.width, first.across, header.width),
            rows: range(needed.top, needed.height, first.down, header.height),
            across: header.width.div_ceil(first.across * 8),
        }
    }
}

/// Decodes the scan until the last needed row; pixels beside and above `needed` are read, but not computed.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header<'_>,
    needed: Region,
    scratch: &mut ScanScratch,
) -> Result<(), String> {
    let window = Window::around(header, needed);
    let ScanScratch {
        tables,
        data,
        parts,
        planes,
    } = scratch;
    without_stuffing(&bytes[header.scan..], data, parts)?;
    // Pixels take memory before anything is read of them.
    if least_bits(header, &window) > data.len().saturating_mul(8) {
        return Err(MISSING.to_owned());
    }
    if header.restart_interval == 0 && parts.len() > 1 {
        return Err("a restart marker without a restart interval".to_owned());
    }
    for (component, plane) in header.components.iter().zip(&mut *planes) {
        plane.stride = window.columns.len() * component.across * 8;
        plane.left = window.columns.start * component.across * 8;
        plane.top = window.rows.start * component.down * 8;
        let rows = window.rows.len() * component.down * 8;
        plane.pixels.resize(plane.stride * rows, 0);
        define(header, component, tables)?;
    }
    let readers = header
        .components
        .iter()
        .map(|component| BlockReader::new(header, component, tables));
    let readers: Vec<BlockReader<'_>> = readers.collect::<Result<_, _>>()?;
    let walk = Walk {
        header,
        window,
        readers: &readers,
        data,
        parts,
    };
    crate::lanes::vectorized(
        #[inline(always)]
        || walk.run(planes),
    )
}

/// Bits that all blocks down to the last needed row take at the least: a code each for the first coefficient and for the end.
fn least_bits(header: &Header<'_>, window: &Window) -> usize {
    let components = header.components.iter();
    let blocks: usize = components
        .map(|component| component.across * component.down)
        .sum();
    2 * blocks * window.across * window.rows.end
}

/// Copies image data without the zeros that are stuffed behind 0xff, up to a marker that ends it; notes where restart
/// markers were, which count round from 0 to 7.
fn without_stuffing(
    mut bytes: &[u8],
    data: &mut Vec<u8>,
    parts: &mut Vec<Range<usize>>,
) -> Result<(), String> {
    data.clear();
    parts.clear();
    let mut start = 0;
    loop {
        let at = memchr(0xff, bytes).unwrap_or(bytes.len());
        data.extend_from_slice(&bytes[..at]);
        match bytes.get(at + 1) {
            Some(0x00) => {
                data.push(0xff);
                bytes = &bytes[at + 2..];
            }
            Some(0xff) => bytes = &bytes[at + 1..],
            Some(&marker @ 0xd0..=0xd7) => {
                if usize::from(marker & 7) != parts.len() % 8 {
                    let expected = parts.len() % 8;
                    return Err(format!(
                        "damaged: restart marker {} for {expected}",
                        marker & 7
                    ));
                }
                parts.push(start..data.len());
                start = data.len();
                bytes = &bytes[at + 2..];
            }
            _ => {
                parts.push(start..data.len());
                return Ok(());
            }
        }
    }
}

/// Prepares the two tables of a component.
fn define(
    header: &Header<'_>,
    component: &Component,
    tables: &mut [[Table; 4]; 2],
) -> Result<(), String> {
    for (class, index) in [component.dc, component.ac].into_iter().enumerate() {
        let missing = || format!("no usable Huffman table {index}");
        let definition = header.huffman[class].get(index).copied().flatten();
        let table = tables[class].get_mut(index).ok_or_else(missing)?;
        table
            .define(definition.ok_or_else(missing)?, class == 1)
            .ok_or_else(missing)?;
    }
    Ok(())
}

impl<'a> BlockReader<'a> {
    fn new(
        header: &Header<'_>,
        component: &Component,
        tables: &'a [[Table; 4]; 2],
    ) -> Result<Self, String> {
        let index = component.quantization;
        let divisors = header.quantization.get(index).copied().flatten();
        let divisors = divisors.ok_or_else(|| format!("no quantisation table {index}"))?;
        Ok(Self {
            dc: &tables[0][component.dc],
            ac: &tables[1][component.ac],
            steps: std::array::from_fn(|k| (ZIGZAG[k], divisors[k] as i16)),
        })
    }

    /// Reads one block; keeps its coefficients, dequantised, if `block` is there, and says whether there is more than the
    /// first. `None` if no such code exists.
    #[inline(always)]
    fn read(
        &self,
        from: &mut Bits<'_>,
        prediction: &mut i16,
        block: Option<&mut [i16; 64]>,
    ) -> Option<bool> {
        // A copy can stay in registers.
        let mut bits = *from;
        bits.refill();
        let (_, difference) = self.dc.read(&mut bits)?;
        *prediction = prediction.wrapping_add(difference as i16);
        let mut kept = block;
        if let Some(block) = &mut kept {
            block[0] = prediction.wrapping_mul(self.steps[0].1);
        }
        let mut keep = |k: usize, value: i16| {
            if let Some(block) = &mut kept {
                let (position, divisor) = self.steps[k & 63];
                block[usize::from(position & 63)] = value.wrapping_mul(divisor);
            }
        };
        // The place of the last coefficient.
        let mut k = 0;
        'block: while k < 63 {
            bits.refill();
            // 56 bits are three looks' worth: 11 for each but the last, which may take 31.
            for _ in 0..3 {
                let pair = self.ac.pair(&bits);
                let first = k + usize::from(pair.first_step);
                if pair.bits != 0 && first < 63 {
                    bits.skip(u32::from(pair.bits));
                    keep(first, pair.first);
                    k = first + usize::from(pair.second_step);
                    if k >= 63 {
                        if k == 63 {
                            keep(k, pair.second);
                        }
                        break 'block;
                    }
                    keep(k, pair.second);
                    continue;
                }
                let (run, value) = self.ac.read(&mut bits)?;
                let before = k;
                k += run + 1;
                if k < 64 {
                    keep(k, value as i16);
                } else if run == END_OF_BLOCK {
                    *from = bits;
                    return Some(before > 0);
                }
                // As many as it likes may be gone.
                continue 'block;
            }
        }
        *from = bits;
        // A run beyond the last coefficient that is no end of block is damage.
        (k == 63 || k > END_OF_BLOCK).then_some(true)
    }
}

/// All that a pass through a scan reads.
struct Walk<'a> {
    header: &'a Header<'a>,
    window: Window,
    readers: &'a [BlockReader<'a>],
    data: &'a [u8],
    parts: &'a [Range<usize>],
}

impl Walk<'_> {
    #[inline(always)]
    fn run(&self, planes: &mut [Plane; 3]) -> Result<(), String> {
        let damaged = || "damaged: no such code".to_owned();
        let mut bits = Bits::new(&[]);
        let mut predictions = [0; 3];
        let (mut until_restart, mut next_part) = (0, 0);
        for row in 0..self.window.rows.end {
            let keeps_row = self.window.rows.contains(&row);
            for column in 0..self.window.across {
                if until_restart == 0 {
                    bits = self.next_part(&bits, next_part)?;
                    next_part += 1;
                    predictions = [0; 3];
                    until_restart = match self.header.restart_interval {
                        0 => usize::MAX,
                        interval => interval,
                    };
                }
                until_restart -= 1;
                let place = (keeps_row && self.window.columns.contains(&column)).then(|| {
                    (
                        row - self.window.rows.start,
                        column - self.window.columns.start,
                    )
                });
                self.unit(&mut bits, &mut predictions, place, planes)
                    .ok_or_else(damaged)?;
                if bits.is_overrun() {
                    return Err(MISSING.to_owned());
                }
            }
        }
        Ok(())
    }

    /// The bits after the next restart marker, or the first ones; those before it must have been used up.
    fn next_part(&self, before: &Bits<'_>, part: usize) -> Result<Bits<'_>, String> {
        if let Some(previous) = part.checked_sub(1)
            && self.parts[previous].len() > before.position().div_ceil(8)
        {
            return Err("damaged: data left before a restart marker".to_owned());
        }
        let range = self.parts.get(part).cloned().ok_or(MISSING)?;
        Ok(Bits::new(&self.data[range]))
    }

    /// Reads one MCU and computes it if it has a place in the planes.
    #[inline(always)]
    fn unit(
        &self,
        bits: &mut Bits<'_>,
        predictions: &mut [i16; 3],
        place: Option<(usize, usize)>,
        planes: &mut [Plane; 3],
    ) -> Option<()> {
        let components = self.header.components.iter().zip(self.readers);
        for (((component, reader), prediction), plane) in components.zip(predictions).zip(planes) {
            for down in 0..component.down {
                for across in 0..component.across {
                    let Some((row, column)) = place else {
                        reader.read(bits, prediction, None)?;
                        continue;
                    };
                    let mut block = [0; 64];
                    let has_more = reader.read(bits, prediction, Some(&mut block))?;
                    let top = (row * component.down + down) * 8;
                    let left = (column * component.across + across) * 8;
                    let target = &mut plane.pixels[top * plane.stride + left..];
                    if has_more {
                        idct::inverse(&block, target, plane.stride);
                    } else {
                        idct::inverse_of_mean(block[0], target, plane.stride);
                    }
                }
            }
        }
        Some(())
    }
}
