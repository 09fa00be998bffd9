//! What collapsed embeddings show, and what usually causes it, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Alarm;

/// A figure by which collapse shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Symptom {
    /// The embeddings lie in few directions.
    EffectiveRank,
    /// The embeddings lie close together.
    Deviation,
    /// A query finds its own image as often as by guessing.
    ContrastTop1,
}

impl Symptom {
    fn finding(self) -> &'static str {
        match self {
            Self::EffectiveRank => "the embeddings lie in few directions: effective rank",
            Self::Deviation => {
                "all images get nearly the same embedding: deviation by dimension, 1 for an even spread,"
            }
            Self::ContrastTop1 => {
                "queries find their own image no better than by guessing: contrast top-1"
            }
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::EffectiveRank => "run.collapse.least_rank_share",
            Self::Deviation => "run.collapse.least_deviation",
            Self::ContrastTop1 => "run.collapse.least_top1_over_chance",
        }
    }

    /// What to look at, the most frequent cause first.
    fn causes(self) -> &'static str {
        match self {
            Self::EffectiveRank => {
                "a learning rate that is too high, or no warm-up (--lr, schedule.warmup_epochs); a temperature that is too \
                 high to tell negatives apart (--temperature); views so weak that a colour or a border gives the image away \
                 (data.recipe); images that are all alike (`eqco-train inspect --grid`)"
            }
            Self::Deviation => {
                "a learning rate that is too high, or no warm-up (--lr, schedule.warmup_epochs); blank or damaged images \
                 (`eqco-train inspect --scan --grid`); negatives that are copies of the positive, as in a data set with \
                 duplicates or smaller than the queue; one too early to judge (run.collapse.grace_steps)"
            }
            Self::ContrastTop1 => {
                "a learning rate that is too high, or far too low to leave the beginning (--lr); blank images or views that \
                 share nothing (`eqco-train inspect --grid`, data.recipe); keys that never follow the queries \
                 (method.ema_coefficient of 1); duplicates among the negatives"
            }
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            symptom,
            step,
            since,
            value,
            threshold,
        } = self;
        write!(
            f,
            "WARNING  {} is {value:.4} at step {step}, and has been below {threshold:.4} ({}) since step {since}. Usual causes: \
             {}. Training goes on; this is said once",
            symptom.finding(),
            symptom.key(),
            symptom.causes()
        )
    }
}
