//! What a baseline JPEG file says before its scan (ITU-T T.81, annex B).

use super::super::check_size;

const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const QUANTIZATION: u8 = 0xdb;
const RESTART_INTERVAL: u8 = 0xdd;
const HUFFMAN: u8 = 0xc4;
const JFIF: u8 = 0xe0;
const ADOBE: u8 = 0xee;

/// One of the planes of an image: luminance, or one of the two of colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks in an MCU, to the right.
    pub(super) across: usize,
    /// Blocks in an MCU, downwards.
    pub(super) down: usize,
    pub(super) quantization: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// The frame and the tables that its only scan uses.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    /// One or three; the first of three has the most blocks, the others have one each.
    pub(super) components: Vec<Component>,
    /// In the order of the zigzag.
    pub(super) quantization: [Option<[u16; 64]>; 4],
    /// The definitions (16 counts, then symbols) of the DC tables and of the AC tables.
    pub(super) huffman: [[Option<&'a [u8]>; 4]; 2],
    /// MCUs between two restart markers; 0 if there are none.
    pub(super) restart_interval: usize,
    /// Whether the three components are red, green and blue as they are.
    pub(super) is_rgb: bool,
    /// Where the scan's data begin.
    pub(super) scan: usize,
}

/// Width and height out of the frame header of any kind of JPEG file.
pub(in crate::decode) fn size(bytes: &[u8]) -> Result<(usize, usize), String> {
    let mut position = 2;
    loop {
        let (marker, segment) = segment(bytes, &mut position)?;
        match marker {
            0xc0..=0xcf if ![HUFFMAN, 0xc8, 0xcc].contains(&marker) => {
                let [_, h1, h0, w1, w0, ..] = *segment else {
                    return Err("truncated inside a header".to_owned());
                };
                let (width, height) = (
                    usize::from(u16::from_be_bytes([w1, w0])),
                    usize::from(u16::from_be_bytes([h1, h0])),
                );
                check_size(width, height)?;
                if width == 0 || height == 0 {
                    return Err(format!("{width} x {height} pixels"));
                }
                return Ok((width, height));
            }
            START_OF_SCAN | END_OF_IMAGE => return Err("no frame header".to_owned()),
            _ => {}
        }
    }
}

/// The next marker and the content of its segment, which `position` is moved behind.
fn segment<'a>(bytes: &'a [u8], position: &mut usize) -> Result<(u8, &'a [u8]), String> {
    let cut = || "truncated inside a header".to_owned();
    // Bytes that belong to nothing are stepped over, as other decoders do.
    let rest = bytes.get(*position..).ok_or_else(cut)?;
    let fill = rest.windows(2).position(|pair| {
        pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xff | 0xd0..=0xd7 | START_OF_IMAGE)
    });
    let marker = *position + fill.ok_or_else(cut)? + 1;
    if bytes[marker] == END_OF_IMAGE {
        return Ok((END_OF_IMAGE, &[]));
    }
    let [high, low] = *bytes.get(marker + 1..marker + 3).ok_or_else(cut)? else {
        return Err(cut());
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let content = bytes.get(marker + 3..marker + 1 + length);
    *position = marker + 1 + length;
    Ok((bytes[marker], content.ok_or_else(cut)?))
}

impl<'a> Header<'a> {
    /// Reads the header if the file is one that this decoder knows: 8 bits, Huffman codes, sequential, grey or three colours
    /// of usual sampling, all of it in one scan. `None` for any other file, damaged ones included.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut header = Self {
            width: 0,
            height: 0,
            components: Vec::new(),
            quantization: [None; 4],
            huffman: [[None; 4]; 2],
            restart_interval: 0,
            is_rgb: false,
            scan: 0,
        };
        let (mut jfif, mut adobe) = (false, None);
        let mut position = 2;
        loop {
            let (marker, segment) = segment(bytes, &mut position).ok()?;
            match marker {
                // Extended sequential is read as baseline is.
                0xc0 | 0xc1 => header.read_frame(segment)?,
                QUANTIZATION => header.read_quantization(segment)?,
                HUFFMAN => header.read_huffman(segment)?,
                RESTART_INTERVAL => {
                    header.restart_interval =
                        usize::from(u16::from_be_bytes(segment.try_into().ok()?));
                }
                JFIF => jfif |= segment.starts_with(b"JFIF\0"),
                ADOBE if segment.starts_with(b"Adobe") => adobe = segment.get(11).copied(),
                START_OF_SCAN => {
                    header.read_scan(segment)?;
                    header.scan = position;
                    break;
                }
                // Other kinds of frames, arithmetic coding, hierarchies and the end.
                0xc2..=0xdf => return None,
                _ => {}
            }
        }
        let ids = header.components.iter().map(|component| component.id);
        header.is_rgb = header.components.len() == 3
            && !jfif
            && adobe.map_or(ids.eq(*b"RGB"), |transform| transform == 0);
        Some(header)
    }

    fn read_frame(&mut self, segment: &[u8]) -> Option<()> {
        let [8, h1, h0, w1, w0, count, components @ ..] = segment else {
            return None;
        };
        if !self.components.is_empty() || components.len() != usize::from(*count) * 3 {
            return None;
        }
        self.width = usize::from(u16::from_be_bytes([*w1, *w0]));
        self.height = usize::from(u16::from_be_bytes([*h1, *h0]));
        for component in components.chunks_exact(3) {
            self.components.push(Component {
                id: component[0],
                across: usize::from(component[1] >> 4),
                down: usize::from(component[1] & 15),
                quantization: usize::from(component[2]),
                ..Default::default()
            });
        }
        let known = match &mut self.components[..] {
            // A scan of one component has one block in an MCU, whatever its sampling.
            [grey] => {
                (grey.across, grey.down) = (1, 1);
                true
            }
            [first, others @ ..] if others.len() == 2 => {
                [1, 2, 4].contains(&first.across)
                    && [1, 2, 4].contains(&first.down)
                    && others
                        .iter()
                        .all(|other| (other.across, other.down) == (1, 1))
            }
            _ => false,
        };
        (known && self.width > 0 && self.height > 0).then_some(())
    }

    fn read_quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let table = self.quantization.get_mut(usize::from(kind & 15))?;
            let bytes = if kind >> 4 == 0 { 1 } else { 2 };
            let values = rest.get(..64 * bytes)?;
            let value = |index| match bytes {
                1 => u16::from(values[index]),
                _ => u16::from_be_bytes([values[index * 2], values[index * 2 + 1]]),
            };
            *table = Some(std::array::from_fn(value));
            segment = &rest[64 * bytes..];
        }
        Some(())
    }

    fn read_huffman(&mut self, mut segment: &'a [u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let class = self.huffman.get_mut(usize::from(kind >> 4))?;
            let table = class.get_mut(usize::from(kind & 15))?;
            let symbols: usize = rest.get(..16)?.iter().copied().map(usize::from).sum();
            *table = Some(rest.get(..16 + symbols)?);
            segment = &rest[16 + symbols..];
        }
        Some(())
    }

    fn read_scan(&mut self, segment: &[u8]) -> Option<()> {
        let [count, components @ ..] = segment else {
            return None;
        };
        let count = usize::from(*count);
        if count == 0 || count != self.components.len() || components.len() != count * 2 + 3 {
            return None;
        }
        for (component, choice) in self.components.iter_mut().zip(components.chunks_exact(2)) {
            if component.id != choice[0] {
                return None;
            }
            (component.dc, component.ac) =
                (usize::from(choice[1] >> 4), usize::from(choice[1] & 15));
        }
        Some(())
    }
}
