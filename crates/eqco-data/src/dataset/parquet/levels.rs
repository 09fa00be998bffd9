//! Small numbers in runs and packed bits: definition levels, and places in a dictionary.

use super::stored_file::{Damage, damaged};

/// Decodes `count` numbers of `bits` bits each, 0 to 32 (Parquet's hybrid of run lengths and packed bits).
///
/// The caller has checked `count` against the size of the file: a few bytes can stand for very many equal numbers.
pub(super) fn decode(mut bytes: &[u8], bits: u8, count: usize) -> Result<Vec<u32>, Damage> {
    if bits > 32 {
        return damaged(format!("numbers of {bits} bits"));
    }
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let (header, rest) = varint(bytes)?;
        let wanted = count - numbers.len();
        bytes = if header & 1 == 0 {
            let width = usize::from(bits.div_ceil(8));
            let Some((value, rest)) = rest.split_at_checked(width) else {
                return damaged("levels that end too early");
            };
            let value = value
                .iter()
                .rev()
                .fold(0, |sum, &b| sum << 8 | u32::from(b));
            let length = usize::try_from(header >> 1).map_or(wanted, |run| run.min(wanted));
            if length == 0 {
                return damaged("a run of nothing");
            }
            numbers.extend(std::iter::repeat_n(value, length));
            rest
        } else {
            // Groups of eight; writers may leave out the bytes behind the last number.
            let groups = usize::try_from(header >> 1).unwrap_or(usize::MAX);
            let packed = groups.saturating_mul(usize::from(bits)).min(rest.len());
            let (packed, rest) = rest.split_at(packed);
            let taken = groups.saturating_mul(8).min(wanted);
            if taken == 0 {
                return damaged("a run of nothing");
            }
            unpack(packed, bits, taken, &mut numbers)?;
            rest
        };
    }
    Ok(numbers)
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Damage> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    damaged("levels that end too early")
}

/// Appends `count` numbers, the lowest bits first.
fn unpack(packed: &[u8], bits: u8, count: usize, numbers: &mut Vec<u32>) -> Result<(), Damage> {
    if (packed.len() as u64) * 8 < count as u64 * u64::from(bits) {
        return damaged("levels that end too early");
    }
    let (mut bytes, mut held, mut have) = (packed.iter(), 0_u64, 0);
    let mask = (1_u64 << bits) - 1;
    for _ in 0..count {
        while have < bits {
            held |= u64::from(bytes.next().copied().unwrap_or_default()) << have;
            have += 8;
        }
        numbers.push((held & mask) as u32);
        held >>= bits;
        have -= bits;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_packed_bits_follow_each_other() {
        // Five times 3, then 0 to 7 in three bits each (the example of the format's documentation).
        let bytes = [5 << 1, 3, 1 << 1 | 1, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        let expected = [3, 3, 3, 3, 3, 0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(decode(&bytes, 3, 13).unwrap(), expected);
        assert_eq!(decode(&bytes, 3, 7).unwrap(), expected[..7]);
        // Two bytes a value, and none where there are no bits.
        assert_eq!(decode(&[4, 1, 1], 9, 2).unwrap(), [257, 257]);
        assert_eq!(decode(&[6], 0, 3).unwrap(), [0, 0, 0]);
        // Of a group of eight only what three numbers need.
        assert_eq!(decode(&[3, 0b101], 1, 3).unwrap(), [1, 0, 1]);
        assert_eq!(
            decode(&[3, 0xff, 0xff, 0xff, 0xff], 32, 1).unwrap(),
            [u32::MAX]
        );
    }

    #[test]
    fn bytes_that_do_not_suffice_are_refused() {
        let refused = |bytes: &[u8], bits, count| decode(bytes, bits, count).is_err();
        assert!(refused(&[], 1, 1) && refused(&[10], 3, 1));
        assert!(refused(&[3], 2, 8) && refused(&[3, 0xff], 2, 5));
        assert!(refused(&[0, 0], 1, 1) && refused(&[1], 1, 1));
        assert!(refused(&[0xff; 8], 1, 1) && refused(&[2, 0], 33, 1));
    }
}
