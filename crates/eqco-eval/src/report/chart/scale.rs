//! Where values stand along an axis, and which of them have a tick.

use super::number::{fixed, significant};

/// A place on an axis with its label.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    /// 0 at the low end of the axis, 1 at the high end.
    pub(crate) place: f64,
    pub(crate) label: String,
}

/// A linear or logarithmic axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<Tick>,
}

impl Scale {
    /// A linear axis that holds all of `values` (those that are not finite count for nothing) and ends at ticks on both
    /// sides.
    pub(crate) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values);
        let step = tick_step(high - low);
        // A value that is a tick but for rounding needs no further tick.
        let low = (low / step + 1e-9).floor() * step;
        let high = (high / step - 1e-9).ceil() * step;
        Self::with_ticks(low, high, step)
    }

    /// A linear axis from 0 to exactly `high`, for steps and epochs.
    pub(crate) fn from_zero(high: f64) -> Self {
        let high = if high.is_finite() && high > 0.0 {
            high
        } else {
            1.0
        };
        Self::with_ticks(0.0, high, tick_step(high))
    }

    fn with_ticks(low: f64, high: f64, step: f64) -> Self {
        let (first, last) = (
            (low / step).round() as i64,
            (high / step + 1e-9).floor() as i64,
        );
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let ticks = (first..=last).map(|count| {
            let value = count as f64 * step;
            let label = if decimals > 4 {
                significant(value, 3)
            } else {
                fixed(value, decimals)
            };
            Tick {
                place: (value - low) / (high - low),
                label,
            }
        });
        Self {
            low,
            high,
            logarithmic: false,
            ticks: ticks.collect(),
        }
    }

    /// A logarithmic axis with a tick at each of `values` and nowhere else. Values that have no logarithm are left out.
    pub(crate) fn logarithmic(values: &[f64]) -> Self {
        let mut values: Vec<f64> = (values.iter().copied())
            .filter(|value| value.is_finite() && *value > 0.0)
            .collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let (low, high) = match (values.first(), values.last()) {
            (Some(&low), Some(&high)) => (low, high),
            _ => (1.0, 10.0),
        };
        // Some room on both sides, so that no marker lies on the frame.
        let room = ((high / low).powf(0.06)).max(1.05);
        let mut scale = Self {
            low: low / room,
            high: high * room,
            logarithmic: true,
            ticks: Vec::new(),
        };
        scale.ticks = (values.iter())
            .map(|&value| Tick {
                place: scale.place(value),
                label: significant(value, 6),
            })
            .collect();
        scale
    }

    /// 0 at the low end, 1 at the high end, outside of that range beyond the ends; not a number stays so.
    pub(crate) fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// The ticks, low ones first.
    pub(crate) fn ticks(&self) -> &[Tick] {
        &self.ticks
    }
}

/// Least and greatest finite value, made apart where they are not.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return (0.0, 1.0);
    }
    let least = (low.abs().max(high.abs()) * 1e-6).max(1e-12);
    if high - low > least {
        return (low, high);
    }
    let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
    (low - room, high + room)
}

/// 1, 2 or 5 times a power of ten, so that there are four to eight of them in `span`.
fn tick_step(span: f64) -> f64 {
    let rough = span / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = match rough / power {
        ratio if ratio < 1.5 => 1.0,
        ratio if ratio < 3.5 => 2.0,
        ratio if ratio < 7.5 => 5.0,
        _ => 10.0,
    };
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|tick| &*tick.label).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_hold_all_values() {
        let scale = Scale::linear([3.1, f64::NAN, 5.4].into_iter());
        assert_eq!(labels(&scale), ["3.0", "3.5", "4.0", "4.5", "5.0", "5.5"]);
        assert_eq!((scale.place(3.0), scale.place(5.5)), (0.0, 1.0));
        assert!((scale.place(4.0) - 0.4).abs() < 1e-12);
        let scale = Scale::linear([-0.2, 0.95].into_iter());
        assert_eq!(
            labels(&scale),
            ["−0.2", "0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        let scale = Scale::linear([0.0, 0.000_03].into_iter());
        assert_eq!(
            labels(&scale),
            ["0", "5e−6", "1e−5", "1.5e−5", "2e−5", "2.5e−5", "3e−5"]
        );
    }

    #[test]
    fn equal_absent_and_infinite_values_have_an_axis_too() {
        let scale = Scale::linear([50.0, 50.0].into_iter());
        assert_eq!(labels(&scale), ["44", "46", "48", "50", "52", "54", "56"]);
        assert_eq!(labels(&Scale::linear([0.0].into_iter()))[0], "−1.0");
        for empty in [vec![], vec![f64::NAN, f64::INFINITY]] {
            assert_eq!(Scale::linear(empty.into_iter()).place(0.5), 0.5);
        }
        assert_eq!(Scale::from_zero(0.0).place(1.0), 1.0);
    }

    #[test]
    fn steps_begin_at_zero_and_end_where_they_end() {
        let scale = Scale::from_zero(1_560.0);
        assert_eq!(
            labels(&scale),
            ["0", "200", "400", "600", "800", "1,000", "1,200", "1,400"]
        );
        assert_eq!(scale.place(780.0), 0.5);
    }

    #[test]
    fn logarithmic_ticks_stand_at_the_values() {
        let scale = Scale::logarithmic(&[256.0, 4.0, 16.0, 16.0, 0.0]);
        assert_eq!(labels(&scale), ["4", "16", "256"]);
        let places: Vec<f64> = scale.ticks.iter().map(|tick| tick.place).collect();
        let (first, second) = (places[1] - places[0], places[2] - places[1]);
        assert!((second / first - 2.0).abs() < 1e-9, "{places:?}");
        assert!(places[0] > 0.0 && places[2] < 1.0, "{places:?}");
        assert!(Scale::logarithmic(&[16.0]).place(16.0).is_finite());
    }
}
