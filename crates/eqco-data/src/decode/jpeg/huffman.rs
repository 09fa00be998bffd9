//! Huffman codes and the numbers behind them (ITU-T T.81, annex F.2.2).

/// Bits that one look at the table sees: few codes are longer.
const LOOKAHEAD: u32 = 10;

/// The same for two symbols together with their numbers.
const PAIR_LOOKAHEAD: u32 = 11;

/// What the run of an end of block counts as: more than a block has coefficients.
pub(super) const END_OF_BLOCK: usize = 128;

/// The decoder of one code: each symbol is a run of zeros and the size of the number that follows.
#[derive(Debug)]
pub(super) struct Table {
    /// What the entries below were made of; files of one origin share their tables.
    definition: Vec<u8>,
    is_ac: bool,
    /// By the next bits; the code's length is 0 where `LOOKAHEAD` bits are too few.
    entries: Box<[Entry; 1 << LOOKAHEAD]>,
    /// By the next bits, of AC tables: up to two symbols with their numbers; no bits where one alone is too long.
    pairs: Box<[Pair; 1 << PAIR_LOOKAHEAD]>,
    /// For each length of a code: the first value that is no code of it any more, and what turns a code into its symbol's
    /// position.
    longer: [(u32, i32); 17],
    symbols: Vec<u8>,
}

/// A code and what it means.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Bits of the code, and of the number after it.
    code: u8,
    number: u8,
    /// Both together.
    all: u8,
    /// Zeros before the number.
    run: u8,
}

/// One or two coefficients, and how far apart they are. If there is but one, it is there twice, 0 apart.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(8))]
pub(super) struct Pair {
    /// Of both.
    pub(super) bits: u8,
    /// From the last coefficient's place to the first's, and from there to the second's; [`END_OF_BLOCK`] if it ends there.
    pub(super) first_step: u8,
    pub(super) second_step: u8,
    pub(super) first: i16,
    pub(super) second: i16,
}

impl Entry {
    /// The number behind the code on top of `buffer`.
    #[inline(always)]
    fn number(self, buffer: u64) -> i32 {
        let (following, size) = (buffer << self.code, self.number);
        let number = (following >> 1 >> (63 - size)) as i32;
        // The upper half of the values of a size is positive, the lower half belongs to the negative ones.
        let is_negative = !((following as i64) >> 63) as i32;
        number + (is_negative << size) - is_negative
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            definition: Vec::new(),
            is_ac: false,
            entries: Box::new([Entry::default(); 1 << LOOKAHEAD]),
            pairs: Box::new([Pair::default(); 1 << PAIR_LOOKAHEAD]),
            longer: [(0, 0); 17],
            symbols: Vec::new(),
        }
    }
}

impl Table {
    /// Becomes the decoder of a definition (16 counts of codes by length, then their symbols), if it is a code at all.
    pub(super) fn define(&mut self, definition: &[u8], is_ac: bool) -> Option<()> {
        if self.definition == definition && self.is_ac == is_ac {
            return Some(());
        }
        self.definition.clear();
        self.is_ac = is_ac;
        self.entries.fill(Entry::default());
        let (counts, symbols) = definition.split_at_checked(16)?;
        self.symbols = symbols.to_vec();
        let (mut code, mut position) = (0u32, 0);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            let first = code;
            for &symbol in symbols.get(position..position + count)? {
                if code >= 1 << length {
                    return None;
                }
                if let Some(free) = LOOKAHEAD.checked_sub(length) {
                    let same = (code << free) as usize..((code + 1) << free) as usize;
                    let entry = self.entry(length, symbol);
                    self.entries[same].fill(entry);
                }
                code += 1;
            }
            self.longer[length as usize] = (code, position as i32 - first as i32);
            position += count;
            code <<= 1;
        }
        if is_ac {
            self.pair_up();
        }
        self.definition = definition.to_vec();
        Some(())
    }

    /// Fills the table of pairs from that of single codes.
    fn pair_up(&mut self) {
        for at in 0..1u64 << PAIR_LOOKAHEAD {
            let mut buffer = at << (64 - PAIR_LOOKAHEAD);
            let mut read = |free: u32| {
                let entry = self.entries[(buffer >> (64 - LOOKAHEAD)) as usize];
                let fits = entry.code > 0 && u32::from(entry.all) <= free;
                let number = entry.number(buffer) as i16;
                buffer <<= entry.all;
                fits.then_some((entry, number))
            };
            let mut pair = Pair::default();
            if let Some((entry, number)) = read(PAIR_LOOKAHEAD) {
                pair = Pair {
                    bits: entry.all,
                    first_step: entry.run + 1,
                    second_step: 0,
                    first: number,
                    second: number,
                };
                let ends = usize::from(entry.run) >= END_OF_BLOCK;
                if !ends && let Some((entry, number)) = read(PAIR_LOOKAHEAD - u32::from(pair.bits))
                {
                    pair.bits += entry.all;
                    (pair.second_step, pair.second) = (entry.run + 1, number);
                }
            }
            self.pairs[at as usize] = pair;
        }
    }

    fn entry(&self, length: u32, symbol: u8) -> Entry {
        let number = symbol & 15;
        Entry {
            code: length as u8,
            number,
            all: length as u8 + number,
            run: match symbol {
                // Without a number only a run of 16 zeros goes on.
                0xf0 => 15,
                _ if self.is_ac && number == 0 => END_OF_BLOCK as u8,
                _ if self.is_ac => symbol >> 4,
                _ => 0,
            },
        }
    }

    /// Reads a symbol and its number: the run of zeros before it, and the number. At most 31 bits, which must be there.
    #[inline(always)]
    pub(super) fn read(&self, bits: &mut Bits<'_>) -> Option<(usize, i32)> {
        let mut entry = self.entries[(bits.buffer >> (64 - LOOKAHEAD)) as usize];
        if entry.code == 0 {
            entry = self.longer(bits.buffer)?;
        }
        let number = entry.number(bits.buffer);
        bits.skip(u32::from(entry.all));
        Some((usize::from(entry.run), number))
    }

    /// The next one or two symbols of an AC table.
    #[inline(always)]
    pub(super) fn pair(&self, bits: &Bits<'_>) -> Pair {
        self.pairs[(bits.buffer >> (64 - PAIR_LOOKAHEAD)) as usize]
    }

    /// The entry of a code of more than `LOOKAHEAD` bits, of which `buffer` has the first on top.
    #[cold]
    fn longer(&self, buffer: u64) -> Option<Entry> {
        (LOOKAHEAD + 1..=16).find_map(|length| {
            let (end, offset) = self.longer[length as usize];
            let code = (buffer >> (64 - length)) as u32;
            let symbol = self.symbols.get((code as i32 + offset) as usize);
            (code < end).then(|| symbol.map(|&symbol| self.entry(length, symbol)))?
        })
    }
}

/// Reads bits from bytes without stuffing; zeros follow the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next bits, the first one on top. What lies behind the first `count` may be there already.
    buffer: u64,
    count: u32,
    /// Bytes that went into `count`.
    taken: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            buffer: 0,
            count: 0,
            taken: 0,
        }
    }

    /// Makes sure of 56 bits.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        let word = match self.bytes.get(self.taken..self.taken.wrapping_add(8)) {
            Some(word) => u64::from_be_bytes(word.try_into().unwrap_or_default()),
            None => self.last_bytes(),
        };
        self.buffer |= word >> self.count;
        self.taken += (63 - self.count as usize) / 8;
        self.count |= 56;
    }

    #[cold]
    fn last_bytes(&self) -> u64 {
        let mut word = [0; 8];
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let length = rest.len().min(8);
        word[..length].copy_from_slice(&rest[..length]);
        u64::from_be_bytes(word)
    }

    /// Steps over bits that [`Bits::refill`] has made sure of.
    #[inline(always)]
    pub(super) fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// Bits read so far.
    pub(super) fn position(&self) -> usize {
        self.taken * 8 - self.count as usize
    }

    /// Whether more was read than there is.
    #[inline(always)]
    pub(super) fn is_overrun(&self) -> bool {
        self.taken >= self.bytes.len() && self.position() > self.bytes.len() * 8
    }
}
