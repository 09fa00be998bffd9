//! A part of the labelled images that keeps the proportions of the classes.

use std::sync::Arc;

use eqco_data::{Dataset, subset};

use crate::{EvalError, order};

/// The share `share` (above 0, at most 1) of every class of `dataset`, rounded to the nearest whole number of images but at
/// least one, drawn by `seed`: SimCLR's semi-supervised protocol (Chen et al. 2020, section 4 and appendix B, "1 % and 10 %
/// of the labelled data in a class-balanced way"). Order is kept, and the name tells the number.
///
/// A larger share with the same seed holds all images of a smaller one.
///
/// # Errors
/// [`EvalError::InvalidSetting`] if the share is out of range, [`EvalError::Unlabelled`] if an image has no label.
pub fn label_share(
    dataset: &Arc<dyn Dataset>,
    share: f64,
    seed: u64,
) -> Result<Arc<dyn Dataset>, EvalError> {
    check_share(share)?;
    let mut members = vec![Vec::new(); dataset.class_names().len()];
    for index in 0..dataset.len() {
        let members = dataset
            .label(index)
            .and_then(|label| members.get_mut(label as usize));
        let members = members.ok_or_else(|| EvalError::Unlabelled {
            origin: dataset.describe(index),
        })?;
        members.push(index as u32);
    }
    let mut indices = Vec::new();
    for (class, mut members) in members.into_iter().enumerate() {
        let mut stream = order::stream(seed, order::Purpose::LabelShare, class as u64);
        order::shuffle(&mut stream, &mut members);
        let count = (members.len() as f64 * share).round().max(1.0) as usize;
        members.truncate(count);
        indices.extend(members);
    }
    indices.sort_unstable();
    let name = format!("{}, {} labelled images", dataset.name(), indices.len());
    Ok(subset(Arc::clone(dataset), name, indices))
}

/// Whether `share` is above 0 and at most 1.
///
/// # Errors
/// [`EvalError::InvalidSetting`] if not.
pub fn check_share(share: f64) -> Result<(), EvalError> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    let expected = "a number above 0 and at most 1 (0.01 is 1 %)";
    Err(EvalError::setting("share", expected, share))
}

#[cfg(test)]
mod tests {
    use eqco_data::Image;

    use super::*;
    use crate::images::tests::{MemoryImages, gradients};

    fn names(part: &Arc<dyn Dataset>) -> Vec<String> {
        (0..part.len()).map(|index| part.describe(index)).collect()
    }

    #[test]
    fn every_class_gives_its_share_and_at_least_one_image() {
        // 100 images of each of three classes.
        let whole: Arc<dyn Dataset> = Arc::new(gradients(300, 2));
        for (share, of_each) in [(0.001, 1), (0.01, 1), (0.1, 10), (0.125, 13), (1.0, 100)] {
            let part = label_share(&whole, share, 3).unwrap();
            let mut counts = [0; 3];
            (0..part.len()).for_each(|at| counts[part.label(at).unwrap() as usize] += 1);
            assert_eq!(counts, [of_each; 3], "{share}");
            let count = 3 * of_each;
            assert_eq!(part.name(), format!("in memory, {count} labelled images"));
        }
        assert_eq!(names(&label_share(&whole, 1.0, 3).unwrap()), names(&whole));
    }

    #[test]
    fn the_seed_chooses_and_shares_are_nested() {
        let whole: Arc<dyn Dataset> = Arc::new(gradients(300, 2));
        let chosen = |share, seed| names(&label_share(&whole, share, seed).unwrap());
        assert_eq!(chosen(0.1, 1), chosen(0.1, 1));
        assert_ne!(chosen(0.1, 1), chosen(0.1, 2));
        let larger = chosen(0.2, 1);
        assert!(chosen(0.1, 1).iter().all(|name| larger.contains(name)));
        // The same image under both numbers.
        let part = label_share(&whole, 0.1, 1).unwrap();
        let index: usize = part.describe(4)["image ".len()..].parse().unwrap();
        assert_eq!(part.image(4).unwrap(), whole.image(index).unwrap());
    }

    #[test]
    fn shares_out_of_range_and_images_without_labels_are_refused() {
        let whole: Arc<dyn Dataset> = Arc::new(gradients(6, 2));
        for share in [0.0, -0.1, 1.001, 2.0, f64::NAN, f64::INFINITY] {
            let error = label_share(&whole, share, 0).err().unwrap();
            assert!(error.to_string().starts_with("share: expected"), "{error}");
        }
        let image = Image::new(1, 1, vec![0; 3]).unwrap();
        let unlabelled: Arc<dyn Dataset> = Arc::new(MemoryImages::new(vec![image], &[]));
        let error = label_share(&unlabelled, 0.5, 0).err().unwrap();
        assert!(matches!(error, EvalError::Unlabelled { .. }), "{error}");
    }
}
