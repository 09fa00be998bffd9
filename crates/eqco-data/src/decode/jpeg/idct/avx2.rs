//! The same transform on AVX2's registers: compilers gather the lanes of the portable form one by one, which takes twice as long.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi16_epi32, _mm256_extract_epi64,
    _mm256_mullo_epi32, _mm256_packs_epi32, _mm256_packus_epi16, _mm256_permute2x128_si256,
    _mm256_set1_epi32, _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srai_epi32,
    _mm256_sub_epi32, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32,
    _mm256_unpacklo_epi64,
};

use super::{BETWEEN_BITS, CONSTANT_BITS};

/// [`super::inverse`], to the bit.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn inverse(coefficients: &[i16; 64], target: &mut [u8], stride: usize) {
    let rows = coefficients.as_chunks::<8>().0;
    let columns = std::array::from_fn(|row| {
        // SAFETY: a row has the 16 bytes that are read.
        _mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(rows[row].as_ptr().cast()) })
    });
    let between = transpose(pass::<{ (CONSTANT_BITS - BETWEEN_BITS) as i32 }>(
        columns, 0,
    ));
    let columns = pass::<{ (CONSTANT_BITS + BETWEEN_BITS + 3) as i32 }>(between, 128);
    for (row, bytes) in bytes_of_rows(columns).into_iter().enumerate() {
        target[row * stride..][..8].copy_from_slice(&bytes.to_le_bytes());
    }
}

/// Eight columns of eight numbers to eight rows of bytes, which saturate.
#[target_feature(enable = "avx2")]
#[inline]
fn bytes_of_rows(columns: [__m256i; 8]) -> [i64; 8] {
    let [c0, c1, c2, c3, c4, c5, c6, c7] = columns;
    let four = |a, b, c, d| _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    // In each half four by four bytes: columns of four rows.
    let across = _mm256_setr_epi8(
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10,
        14, 3, 7, 11, 15,
    );
    let left = _mm256_shuffle_epi8(four(c0, c1, c2, c3), across);
    let right = _mm256_shuffle_epi8(four(c4, c5, c6, c7), across);
    let (low, high) = (
        _mm256_unpacklo_epi32(left, right),
        _mm256_unpackhi_epi32(left, right),
    );
    [
        _mm256_extract_epi64::<0>(low),
        _mm256_extract_epi64::<1>(low),
        _mm256_extract_epi64::<0>(high),
        _mm256_extract_epi64::<1>(high),
        _mm256_extract_epi64::<2>(low),
        _mm256_extract_epi64::<3>(low),
        _mm256_extract_epi64::<2>(high),
        _mm256_extract_epi64::<3>(high),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let pair = |a, b| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let ((a0, a1), (b0, b1), (c0, c1), (d0, d1)) =
        (pair(r0, r1), pair(r2, r3), pair(r4, r5), pair(r6, r7));
    let quad = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let ((e0, e1), (e2, e3)) = (quad(a0, b0), quad(a1, b1));
    let ((f0, f1), (f2, f3)) = (quad(c0, d0), quad(c1, d1));
    [
        _mm256_permute2x128_si256::<0x20>(e0, f0),
        _mm256_permute2x128_si256::<0x20>(e1, f1),
        _mm256_permute2x128_si256::<0x20>(e2, f2),
        _mm256_permute2x128_si256::<0x20>(e3, f3),
        _mm256_permute2x128_si256::<0x31>(e0, f0),
        _mm256_permute2x128_si256::<0x31>(e1, f1),
        _mm256_permute2x128_si256::<0x31>(e2, f2),
        _mm256_permute2x128_si256::<0x31>(e3, f3),
    ]
}

/// One dimension of eight transforms; `level` is added to the results. See [`super::transform`] for the steps.
#[target_feature(enable = "avx2")]
#[inline]
fn pass<const SHIFT: i32>(input: [__m256i; 8], level: i32) -> [__m256i; 8] {
    let add = |a, b| _mm256_add_epi32(a, b);
    let sub = |a, b| _mm256_sub_epi32(a, b);
    let times = |value, constant| _mm256_mullo_epi32(value, _mm256_set1_epi32(constant));
    let rounding = _mm256_set1_epi32((1 << (SHIFT - 1)) + (level << SHIFT));
    let z1 = times(add(input[2], input[6]), 4_433);
    let tmp2 = sub(z1, times(input[6], 15_137));
    let tmp3 = add(z1, times(input[2], 6_270));
    let tmp0 = _mm256_slli_epi32::<{ CONSTANT_BITS as i32 }>(add(input[0], input[4]));
    let tmp1 = _mm256_slli_epi32::<{ CONSTANT_BITS as i32 }>(sub(input[0], input[4]));
    let (tmp0, tmp1) = (add(tmp0, rounding), add(tmp1, rounding));
    let even = [
        add(tmp0, tmp3),
        add(tmp1, tmp2),
        sub(tmp1, tmp2),
        sub(tmp0, tmp3),
    ];

    let z3 = add(input[7], input[3]);
    let z4 = add(input[5], input[1]);
    let z5 = times(add(z3, z4), 9_633);
    let z1 = times(add(input[7], input[1]), -7_373);
    let z2 = times(add(input[5], input[3]), -20_995);
    let z3 = add(times(z3, -16_069), z5);
    let z4 = add(times(z4, -3_196), z5);
    let sum = |factor, constant, a, b| add(times(factor, constant), add(a, b));
    let odd = [
        sum(input[1], 12_299, z1, z4),
        sum(input[3], 25_172, z2, z3),
        sum(input[5], 16_819, z2, z4),
        sum(input[7], 2_446, z1, z3),
    ];
    let shifted = |value| _mm256_srai_epi32::<SHIFT>(value);
    [
        shifted(add(even[0], odd[0])),
        shifted(add(even[1], odd[1])),
        shifted(add(even[2], odd[2])),
        shifted(add(even[3], odd[3])),
        shifted(sub(even[3], odd[3])),
        shifted(sub(even[2], odd[2])),
        shifted(sub(even[1], odd[1])),
        shifted(sub(even[0], odd[0])),
    ]
}
