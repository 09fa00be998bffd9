//! How the bytes of an input are taken apart.

/// The first byte, whose bits choose among ways to use the rest.
pub fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}

/// Two parts: the first two bytes, lowest first, say how many bytes the first one has.
pub fn two(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else {
        return (data, &[]);
    };
    let length = usize::from(u16::from_le_bytes(*length));
    rest.split_at(length.min(rest.len()))
}

/// What [`two`] takes apart, of a first part of less than 64 KiB.
pub fn join(first: &[u8], second: &[u8]) -> Vec<u8> {
    let length = u16::try_from(first.len()).expect("a first part of less than 64 KiB");
    [&length.to_le_bytes()[..], first, second].concat()
}
