//! Pixels as three short planes, on which one operation works on many pixels at once.

use crate::lanes::vectorized;

/// Pixels at a time: what lies in a few of the widest registers.
pub(super) const COUNT: usize = 64;

/// Red, green and blue of [`COUNT`] pixels.
pub(super) type Planes = [[u8; COUNT]; 3];

/// Calls `change` with the pixels of an RGB buffer, [`COUNT`] at a time, on the widest vector unit; it must be
/// `#[inline(always)]`. Black pixels fill the last planes up; what becomes of them is forgotten.
#[inline(always)]
pub(super) fn change_planes(rgb: &mut [u8], change: impl Fn(&mut Planes)) {
    vectorized(
        #[inline(always)]
        || {
            let (chunks, rest) = rgb.as_chunks_mut::<{ COUNT * 3 }>();
            for chunk in chunks {
                let mut planes = split(chunk);
                change(&mut planes);
                *chunk = join(&planes);
            }
            if !rest.is_empty() {
                let mut planes = split(&padded(rest));
                change(&mut planes);
                rest.copy_from_slice(&join(&planes)[..rest.len()]);
            }
        },
    );
}

/// The sum of what `measure` finds on all planes; black pixels must give it nothing.
#[inline(always)]
pub(super) fn sum_over_planes(rgb: &[u8], measure: impl Fn(&Planes) -> u64) -> u64 {
    vectorized(
        #[inline(always)]
        || {
            let (chunks, rest) = rgb.as_chunks::<{ COUNT * 3 }>();
            let whole: u64 = chunks.iter().map(|chunk| measure(&split(chunk))).sum();
            whole + measure(&split(&padded(rest)))
        },
    )
}

fn padded(rest: &[u8]) -> [u8; COUNT * 3] {
    let mut chunk = [0; COUNT * 3];
    chunk[..rest.len()].copy_from_slice(rest);
    chunk
}

#[inline(always)]
fn split(chunk: &[u8; COUNT * 3]) -> Planes {
    let mut planes = [[0; COUNT]; 3];
    for index in 0..COUNT {
        planes[0][index] = chunk[index * 3];
        planes[1][index] = chunk[index * 3 + 1];
        planes[2][index] = chunk[index * 3 + 2];
    }
    planes
}

#[inline(always)]
fn join([red, green, blue]: &Planes) -> [u8; COUNT * 3] {
    let mut chunk = [0; COUNT * 3];
    for index in 0..COUNT {
        chunk[index * 3] = red[index];
        chunk[index * 3 + 1] = green[index];
        chunk[index * 3 + 2] = blue[index];
    }
    chunk
}
