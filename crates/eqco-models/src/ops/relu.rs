//! max(0, ·) on its own, for projection heads without batch normalisation.

use candle_core::Result;

use super::access::{read, write};
use super::lanes::zip_chunks;
use crate::tape::{Activation, Tape};

/// Element-wise max(0, x); a NaN stays one.
///
/// # Errors
/// When memory cannot be allocated.
pub fn relu(tape: &mut Tape, input: &Activation) -> Result<Activation> {
    let mut output = tape.allocate(input.tensor().shape().clone())?;
    read(input.tensor(), |x| {
        write(output.tensor(), |y| {
            zip_chunks(
                y,
                x,
                #[inline(always)]
                |y, x| {
                    y.iter_mut()
                        .zip(x)
                        .for_each(|(y, x)| *y = if *x < 0.0 { 0.0 } else { *x })
                },
            )
        })
    })??;
    let (slot, kept) = (input.slot(), output.clone());
    tape.record(&mut output, move |gradient, pass| {
        let Some(slot) = slot else { return Ok(()) };
        read(kept.tensor(), |y| {
            write(gradient.tensor(), |dy| {
                zip_chunks(
                    dy,
                    y,
                    #[inline(always)]
                    |dy, y| {
                        dy.iter_mut()
                            .zip(y)
                            .for_each(|(dy, y)| *dy = if *y > 0.0 { *dy } else { 0.0 })
                    },
                );
            })
        })??;
        pass.give(&slot, gradient)
    });
    Ok(output)
}
