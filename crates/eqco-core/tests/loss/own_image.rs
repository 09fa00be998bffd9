//! A query's own image is its positive and never one of its negatives.
//!
//! Every image is an axis of its own: the similarity of a query with its own key is 1, with any other 0. Were its own key
//! among the negatives of any query, their mean similarity would not be 0.

use candle_core::{Device, Tensor};
use eqco_core::{
    Alpha, ContrastiveLoss, DrawKind, LossConfig, NegativeDraw, Negatives, WantedGradients, nt_xent,
};

const CONFIG: LossConfig = LossConfig {
    temperature: 0.2,
    alpha: Alpha::Equivalent(64.0),
};

fn axes(images: usize) -> Tensor {
    let rows: Vec<f32> = (0..images * images)
        .map(|place| f32::from(u8::from(place % images == place / images)))
        .collect();
    Tensor::from_vec(rows, (images, images), &Device::Cpu).unwrap()
}

/// Similarities of positives and negatives of the queries from `first` on.
fn similarities(draw: &NegativeDraw, keys: &Tensor, first: usize, count: usize) -> (f64, f64) {
    let loss = ContrastiveLoss::new(CONFIG).unwrap();
    let own = keys.narrow(0, first, count).unwrap();
    let negatives = Negatives::InLargerBatch {
        draw,
        batch_keys: keys,
        first,
    };
    let found = loss
        .evaluate(&own, &own, negatives, WantedGradients::QUERIES)
        .unwrap();
    (
        found.statistics.positive_similarity,
        found.statistics.negative_similarity,
    )
}

#[test]
fn simo_never_contrasts_a_query_with_its_own_key_in_any_batch_draw_or_part() {
    let mut cases = 0;
    for kind in [DrawKind::PerQuery, DrawKind::SharedColumns] {
        for batch in 2..=17 {
            let keys = axes(batch);
            for count in
                (1..batch).filter(|count| batch < 9 || count % 3 == 1 || *count == batch - 1)
            {
                for step in 0..3 {
                    let draw = NegativeDraw::sample(kind, batch, count, 5, step).unwrap();
                    for part in 1..=batch {
                        // Parts as a micro-batch or a rank takes them.
                        for first in (0..batch).step_by(part) {
                            let count = part.min(batch - first);
                            assert_eq!(
                                similarities(&draw, &keys, first, count),
                                (1.0, 0.0),
                                "{kind:?}, batch {batch}, part {part} from {first}"
                            );
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(cases > 5_000, "{cases}");
}

#[test]
fn simclr_never_contrasts_a_view_with_either_view_of_its_own_image() {
    for batch in 2..=40 {
        let views = axes(batch);
        let found = nt_xent(&CONFIG, &views, &views).unwrap().statistics;
        assert_eq!(
            (found.positive_similarity, found.negative_similarity),
            (1.0, 0.0),
            "{batch}"
        );
    }
}
