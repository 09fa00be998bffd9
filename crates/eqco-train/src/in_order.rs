//! Work on many images over all threads, with results in the order of the images.

use anyhow::Result;
use rayon::prelude::*;

/// Images that a thread has in hand at a time, on average. Results wait for the slowest of them, in memory.
const IMAGES_A_THREAD: usize = 16;

/// Makes the result of every number below `count` on the current rayon pool and hands them to `take` one after the other,
/// in order. So many results as 16 for each thread are in memory at a time.
///
/// # Errors
/// The first one of `take`, after which nothing more is made.
pub fn in_order<Made: Send>(
    count: usize,
    make: impl Fn(usize) -> Made + Sync,
    mut take: impl FnMut(usize, Made) -> Result<()>,
) -> Result<()> {
    let at_a_time = IMAGES_A_THREAD * rayon::current_num_threads();
    let mut made = Vec::with_capacity(at_a_time.min(count));
    for start in (0..count).step_by(at_a_time) {
        let end = count.min(start + at_a_time);
        (start..end)
            .into_par_iter()
            .map(&make)
            .collect_into_vec(&mut made);
        for (number, result) in (start..end).zip(made.drain(..)) {
            take(number, result)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_number_is_taken_once_and_in_order_whatever_the_threads() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let taken = pool.build().unwrap().install(|| {
                let mut taken = Vec::new();
                in_order(
                    100,
                    |number| number * number,
                    |number, made| {
                        assert_eq!(made, number * number);
                        taken.push(number);
                        Ok(())
                    },
                )
                .unwrap();
                taken
            });
            assert_eq!(taken, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_ends_the_work() {
        let made = AtomicUsize::new(0);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let result = pool.unwrap().install(|| {
            let make = |_| made.fetch_add(1, Ordering::Relaxed);
            in_order(1_000, make, |number, _| match number {
                20 => anyhow::bail!("enough"),
                _ => Ok(()),
            })
        });
        assert_eq!(result.unwrap_err().to_string(), "enough");
        assert_eq!(made.into_inner(), 32, "two times 16");
    }
}
