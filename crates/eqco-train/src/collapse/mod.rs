//! The alarm for embeddings that collapse: nearly one point, nearly one direction, or no image told from another.
//!
//! A collapsed run trains on, its loss a plausible number, and shows only when it is measured at the end. Whether it has
//! collapsed is judged by three figures, each with a threshold, over many steps in a row, and said once a run.

mod symptom;

use std::collections::BTreeSet;

use eqco_eval::Geometry;
use serde::{Deserialize, Serialize};

pub use symptom::Symptom;

/// When the alarm is raised. A threshold of 0 leaves its figure out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollapseConfig {
    /// Steps at the beginning of a run that are not judged: untrained encoders give all images much the same embedding.
    pub grace_steps: u64,
    /// A figure has to be bad for so many steps in a row; at least 1.
    pub window_steps: u64,
    /// Least effective rank of the embeddings of a batch, as a share from 0, one direction, to 1, as many as there can be.
    pub least_rank_share: f64,
    /// Least deviation of the embeddings of a batch by dimension, 0 for one point, 1 for an even spread.
    pub least_deviation: f64,
    /// Least contrast top-1, as a multiple of what guessing gives.
    pub least_top1_over_chance: f64,
}

impl Default for CollapseConfig {
    fn default() -> Self {
        Self {
            grace_steps: 200,
            window_steps: 100,
            least_rank_share: 0.02,
            least_deviation: 0.1,
            least_top1_over_chance: 1.2,
        }
    }
}

impl CollapseConfig {
    /// The key and the value of a field that is out of its range, with the range.
    pub fn out_of_range(&self) -> Option<(&'static str, f64, &'static str)> {
        let share = "a number from 0, which leaves it out, to 1";
        let checks = [
            (
                "run.collapse.window_steps",
                self.window_steps as f64,
                "at least 1",
                self.window_steps >= 1,
            ),
            (
                "run.collapse.least_rank_share",
                self.least_rank_share,
                share,
                (0.0..=1.0).contains(&self.least_rank_share),
            ),
            (
                "run.collapse.least_deviation",
                self.least_deviation,
                share,
                (0.0..=1.0).contains(&self.least_deviation),
            ),
            (
                "run.collapse.least_top1_over_chance",
                self.least_top1_over_chance,
                "a finite number from 0, which leaves it out",
                self.least_top1_over_chance.is_finite() && self.least_top1_over_chance >= 0.0,
            ),
        ];
        let bad = checks.into_iter().find(|(.., holds)| !holds)?;
        Some((bad.0, bad.1, bad.2))
    }
}

/// What a step shows.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Steps done before it, over the whole run.
    pub step: u64,
    /// Share of queries, 0 to 1, whose positive is the most similar key.
    pub contrast_top1: f64,
    /// How the embeddings lie, if they have been looked at.
    pub geometry: Option<Geometry>,
}

/// What has been seen so far. A checkpoint holds it, so that a resumed run is warned of what an undisturbed one is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollapseState {
    rank_is_low_since: Option<u64>,
    deviation_is_low_since: Option<u64>,
    /// The window that contrast top-1 is averaged over at the moment, whose steps have all been judged.
    top1_steps: u64,
    /// In units of 2^-40, a sum of which is exact in JSON, too.
    top1_sum: u64,
    warned: BTreeSet<Symptom>,
}

/// 1 as contrast top-1 in [`CollapseState`].
const WHOLE: f64 = (1u64 << 40) as f64;

/// Raises the alarm of one run.
#[derive(Clone, Debug)]
pub struct CollapseAlarm {
    config: CollapseConfig,
    /// Contrast top-1 of guessing.
    chance_top1: f64,
    /// What has been seen.
    pub state: CollapseState,
}

impl CollapseAlarm {
    /// That of a run whose queries have so many negatives.
    pub fn new(config: CollapseConfig, negatives_per_query: usize) -> Self {
        Self {
            config,
            chance_top1: 1.0 / (negatives_per_query as f64 + 1.0),
            state: CollapseState::default(),
        }
    }

    /// Looks at a step, and tells what is wrong if it has been so for long enough and has not been told before.
    pub fn look(&mut self, sight: &Sight) -> Vec<Alarm> {
        if sight.step < self.config.grace_steps {
            return Vec::new();
        }
        let found = [self.rank(sight), self.deviation(sight), self.top1(sight)];
        let new = found.into_iter().flatten();
        new.filter(|alarm| self.state.warned.insert(alarm.symptom))
            .collect()
    }

    fn rank(&mut self, sight: &Sight) -> Option<Alarm> {
        let geometry = sight.geometry?;
        let threshold = 1.0 + self.config.least_rank_share * (geometry.most_rank - 1.0);
        let is_low = self.config.least_rank_share > 0.0 && geometry.effective_rank < threshold;
        let since = since(&mut self.state.rank_is_low_since, is_low, sight.step)?;
        self.alarm(
            Symptom::EffectiveRank,
            (sight.step, since),
            geometry.effective_rank,
            threshold,
        )
    }

    fn deviation(&mut self, sight: &Sight) -> Option<Alarm> {
        let deviation = sight.geometry?.deviation;
        let threshold = self.config.least_deviation;
        let since = since(
            &mut self.state.deviation_is_low_since,
            deviation < threshold,
            sight.step,
        )?;
        self.alarm(
            Symptom::Deviation,
            (sight.step, since),
            deviation,
            threshold,
        )
    }

    /// Single steps have few queries: windows are judged by their means.
    fn top1(&mut self, sight: &Sight) -> Option<Alarm> {
        let state = &mut self.state;
        state.top1_steps += 1;
        state.top1_sum += (sight.contrast_top1.clamp(0.0, 1.0) * WHOLE).round() as u64;
        if state.top1_steps < self.config.window_steps {
            return None;
        }
        let mean = state.top1_sum as f64 / WHOLE / state.top1_steps as f64;
        let since = (sight.step + 1).saturating_sub(state.top1_steps);
        (state.top1_steps, state.top1_sum) = (0, 0);
        let threshold = self.config.least_top1_over_chance * self.chance_top1;
        (mean < threshold).then_some(Alarm {
            symptom: Symptom::ContrastTop1,
            step: sight.step,
            since,
            value: mean,
            threshold,
        })
    }

    fn alarm(
        &self,
        symptom: Symptom,
        (step, since): (u64, u64),
        value: f64,
        threshold: f64,
    ) -> Option<Alarm> {
        let is_old = step + 1 - since >= self.config.window_steps;
        is_old.then_some(Alarm {
            symptom,
            step,
            since,
            value,
            threshold,
        })
    }
}

/// The step that something has been bad since, if it is bad now.
fn since(noted: &mut Option<u64>, is_bad: bool, step: u64) -> Option<u64> {
    *noted = is_bad.then(|| noted.unwrap_or(step));
    *noted
}

/// A figure that has been below its threshold for a whole window: a line of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Alarm {
    /// Which figure.
    pub symptom: Symptom,
    /// Steps done before the one that raised the alarm.
    pub step: u64,
    /// The first of the steps that were bad in a row.
    pub since: u64,
    /// What the figure is.
    pub value: f64,
    /// What it should be at least.
    pub threshold: f64,
}

#[cfg(test)]
mod tests;
