//! Whether all processes are about to do the same.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use eqco_models::ProcessGroup;

use super::RanksError;

/// Compares the program, the `settings` of the run and the number of its `images` with those of rank 0.
///
/// # Errors
/// [`RanksError::Different`] on all ranks, with what differs first; or when another rank is gone.
pub fn check_agreement(
    group: &ProcessGroup,
    program: &str,
    settings: &str,
    images: usize,
) -> Result<()> {
    let things = [
        ("program", halves(program)),
        ("settings", halves(settings)),
        ("number of images", [images as f64, 0.0]),
    ];
    let mine: Vec<f64> = things.iter().flat_map(|(_, value)| *value).collect();
    let all = group.numbers(&mine)?;
    for (rank, others) in all.iter().enumerate() {
        let mut pairs = others.iter().zip(&all[0]);
        if let Some(place) = pairs.position(|(other, first)| other != first) {
            let (what, _) = things[place / 2];
            return Err(RanksError::Different { rank, what }.into());
        }
    }
    Ok(())
}

/// A digest in two numbers that f64 holds exactly.
fn halves(text: &str) -> [f64; 2] {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let digest = hasher.finish();
    [(digest >> 32) as f64, (digest as u32).into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_agrees_with_itself_and_digests_differ() {
        check_agreement(&ProcessGroup::alone(), "a", "b", 3).unwrap();
        assert_ne!(halves("seed = 0"), halves("seed = 1"));
        assert_eq!(halves("seed = 0"), halves("seed = 0"));
    }
}
