//! The inverse DCT in whole numbers, to the bit that of libjpeg's `jidctint.c` ("islow"; Loeffler, Ligtenberg and Moschytz, 1989,
//! "Practical fast 1-D DCT algorithms with 11 multiplications").

#[cfg(target_arch = "x86_64")]
mod avx2;

/// Fraction bits of a constant.
const CONSTANT_BITS: u32 = 13;
/// Fraction bits between the passes.
const BETWEEN_BITS: u32 = 2;

/// Eight numbers that are handled alike.
type Lanes = [i32; 8];

/// Turns dequantised coefficients (row by row) into bytes: eight rows in `target`, `stride` apart.
#[inline(always)]
pub(super) fn inverse(coefficients: &[i16; 64], target: &mut [u8], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if crate::lanes::has_avx2() {
        // SAFETY: this CPU has AVX2.
        return unsafe { avx2::inverse(coefficients, target, stride) };
    }
    portable_inverse(coefficients, target, stride);
}

#[inline(always)]
fn portable_inverse(coefficients: &[i16; 64], target: &mut [u8], stride: usize) {
    let rows = coefficients.as_chunks::<8>().0;
    let columns = std::array::from_fn(|row| rows[row].map(i32::from));
    let between = transpose(&pass::<{ CONSTANT_BITS - BETWEEN_BITS }>(&columns));
    let rows = transpose(&pass::<{ CONSTANT_BITS + BETWEEN_BITS + 3 }>(&between));
    for (row, target) in rows.iter().zip(target.chunks_mut(stride)) {
        if let Some(target) = target.first_chunk_mut::<8>() {
            *target = row.map(to_byte);
        }
    }
}

/// The same of a block whose first coefficient alone is not zero.
#[inline(always)]
pub(super) fn inverse_of_mean(first: i16, target: &mut [u8], stride: usize) {
    let value = to_byte(((i32::from(first) << BETWEEN_BITS) + 16) >> 5);
    for target in target.chunks_mut(stride).take(8) {
        target[..8].fill(value);
    }
}

#[inline(always)]
fn to_byte(value: i32) -> u8 {
    (value + 128).clamp(0, 255) as u8
}

#[inline(always)]
fn transpose(rows: &[Lanes; 8]) -> [Lanes; 8] {
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

/// One dimension of eight transforms: `input[i]` holds coefficient i of each. `SHIFT` fraction bits are rounded away.
#[inline(always)]
fn pass<const SHIFT: u32>(input: &[Lanes; 8]) -> [Lanes; 8] {
    let mut output = [[0; 8]; 8];
    for lane in 0..8 {
        let values = transform(std::array::from_fn(|index| input[index][lane]));
        for (index, value) in values.into_iter().enumerate() {
            output[index][lane] = value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
        }
    }
    output
}

/// The names are libjpeg's. Nothing overflows but in damaged files, whose pixels are arbitrary then.
#[inline(always)]
fn transform(input: [i32; 8]) -> [i32; 8] {
    let times = |value: i32, constant: i32| value.wrapping_mul(constant);
    let z1 = times(input[2].wrapping_add(input[6]), 4_433);
    let tmp2 = z1.wrapping_sub(times(input[6], 15_137));
    let tmp3 = z1.wrapping_add(times(input[2], 6_270));
    let tmp0 = input[0].wrapping_add(input[4]) << CONSTANT_BITS;
    let tmp1 = input[0].wrapping_sub(input[4]) << CONSTANT_BITS;
    let even = [
        tmp0.wrapping_add(tmp3),
        tmp1.wrapping_add(tmp2),
        tmp1.wrapping_sub(tmp2),
        tmp0.wrapping_sub(tmp3),
    ];

    let z3 = input[7].wrapping_add(input[3]);
    let z4 = input[5].wrapping_add(input[1]);
    let z5 = times(z3.wrapping_add(z4), 9_633);
    let z1 = times(input[7].wrapping_add(input[1]), -7_373);
    let z2 = times(input[5].wrapping_add(input[3]), -20_995);
    let z3 = times(z3, -16_069).wrapping_add(z5);
    let z4 = times(z4, -3_196).wrapping_add(z5);
    let sum = |factor, constant, a: i32, b| times(factor, constant).wrapping_add(a).wrapping_add(b);
    let odd = [
        sum(input[1], 12_299, z1, z4),
        sum(input[3], 25_172, z2, z3),
        sum(input[5], 16_819, z2, z4),
        sum(input[7], 2_446, z1, z3),
    ];
    std::array::from_fn(|index| match index {
        0..=3 => even[index].wrapping_add(odd[index]),
        _ => even[7 - index].wrapping_sub(odd[7 - index]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{on_every_unit, vectorized};

    /// Block number `seed`, with fewer coefficients the larger the number.
    fn block(seed: u32) -> [i16; 64] {
        let mut state = seed.wrapping_mul(2_654_435_769) + 1;
        std::array::from_fn(|index| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let largest = 900 / (index as i32 / 3 + 1);
            if index as u32 > 64 - seed % 64 {
                0
            } else {
                ((state >> 8) as i32 % (largest * 2 + 1) - largest) as i16
            }
        })
    }

    /// The definition of T.81, A.3.3, in double precision.
    fn exact(block: &[i16; 64]) -> [f64; 64] {
        let cosine = |x: usize, u: usize| {
            let scale = if u == 0 { 0.5f64.sqrt() } else { 1.0 };
            scale * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos()
        };
        std::array::from_fn(|at| {
            let terms = (0..64)
                .map(|k| f64::from(block[k]) * cosine(at / 8, k / 8) * cosine(at % 8, k % 8));
            (terms.sum::<f64>() / 4.0 + 128.0).clamp(0.0, 255.0)
        })
    }

    #[test]
    fn pixels_are_within_rounding_of_the_definition_on_every_vector_unit() {
        for seed in 0..200 {
            let block = block(seed);
            let made = on_every_unit(|| {
                let mut pixels = [0; 64];
                vectorized(
                    #[inline(always)]
                    || inverse(&block, &mut pixels, 8),
                );
                pixels
            });
            assert!(made.iter().all(|pixels| *pixels == made[0]));
            for (pixel, exact) in made[0].iter().zip(exact(&block)) {
                assert!(
                    (f64::from(*pixel) - exact).abs() < 0.6,
                    "{seed}: {pixel} {exact}"
                );
            }
        }
    }

    #[test]
    fn blocks_of_one_value_take_a_short_way_to_the_same_bytes() {
        for first in -2_000..2_000 {
            let mut block = [0; 64];
            block[0] = first;
            let (mut long, mut short) = ([0; 64], [0; 64]);
            inverse(&block, &mut long, 8);
            inverse_of_mean(first, &mut short, 8);
            assert_eq!(long, short, "{first}");
        }
    }
}
