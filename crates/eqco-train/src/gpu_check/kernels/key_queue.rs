//! MoCo's queue, around its end and with more keys than it holds.

use eqco_models::key_queue::KeyQueue;

use super::KernelCheck;
use super::parameters::quantities;
use crate::gpu_check::random::Draw;

pub(super) fn checks(seed: u64) -> Vec<KernelCheck> {
    let mut draw = Draw::new(seed, "queue");
    let shapes = [[draw.odd(21, 99), draw.odd(5, 33)], [64, 128]].into_iter();
    shapes.map(|shape| check(seed, shape)).collect()
}

fn check(seed: u64, [capacity, columns]: [usize; 2]) -> KernelCheck {
    KernelCheck::new(format!("{capacity} keys of {columns}"), move |place| {
        let mut queue = KeyQueue::new(capacity, columns, seed, place.device)?;
        let mut draw = Draw::new(seed, "keys");
        for rows in [16, 16, 16, 5, 2 * capacity + 3, 16] {
            let keys = draw.tensor(&[rows, columns], -1.0, 1.0)?;
            queue.enqueue(&keys.to_device(place.device)?)?;
        }
        quantities(queue.state()?, 0.0)
    })
}
