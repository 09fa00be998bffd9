//! The margin rule of the paper, and the three ways to choose `alpha`.
//!
//! EqCo (arXiv 2010.01929, section 3.1) subtracts a margin from the positive similarity,
//! `m = temperature * ln(alpha / K)`, so that K negatives pull on the query as `alpha` would.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::error::LossError;

/// The margin `temperature * ln(alpha / negative_count)` of the paper, in units of similarity.
///
/// It is positive when `negative_count` stands for more negatives than there are, zero for plain
/// InfoNCE and negative when `alpha < negative_count`. `temperature` and `alpha` must be above 0 and
/// `negative_count` at least 1; otherwise the result is what the formula gives (infinite or NaN).
///
/// ```
/// // 16 negatives that stand for 65,536, at temperature 0.2
/// let margin = eqco_core::margin(0.2, 65536.0, 16);
/// assert!((margin - 0.2 * 4096f64.ln()).abs() < 1e-15);
/// ```
pub fn margin(temperature: f64, alpha: f64, negative_count: usize) -> f64 {
    temperature * (alpha / negative_count as f64).ln()
}

/// How many negatives the negatives at hand are to be equivalent to (the paper's alpha).
///
/// Written and read as `"infonce"`, a number, or `"decoupled"`, by serde, `Display` and `FromStr`
/// alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Alpha {
    /// Alpha equals the negative count: the margin is 0 and the loss is plain InfoNCE.
    Infonce,
    /// The loss behaves like InfoNCE with this many negatives, whatever their real number (EqCo).
    /// Any finite number above 0.
    Equivalent(f64),
    /// The limit of alpha to infinity with the constant `ln(alpha / K)` taken off: the positive
    /// leaves the denominator, which is the decoupled contrastive loss (DCL, arXiv 2110.06848).
    Decoupled,
}

impl Alpha {
    /// Alpha as a number for `negative_count` negatives; infinite for [`Alpha::Decoupled`].
    pub fn value(self, negative_count: usize) -> f64 {
        match self {
            Alpha::Infonce => negative_count as f64,
            Alpha::Equivalent(alpha) => alpha,
            Alpha::Decoupled => f64::INFINITY,
        }
    }

    /// The margin over the temperature, `ln(alpha / negative_count)`: the constant that the loss
    /// adds to its logit. 0 for [`Alpha::Decoupled`], whose constant is taken off.
    pub fn log_ratio(self, negative_count: usize) -> f64 {
        match self {
            Alpha::Infonce | Alpha::Decoupled => 0.0,
            Alpha::Equivalent(alpha) => (alpha / negative_count as f64).ln(),
        }
    }

    fn validate(self) -> Result<(), LossError> {
        match self {
            Alpha::Equivalent(got) if !(got.is_finite() && got > 0.0) => {
                Err(LossError::Alpha { got })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Alpha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alpha::Infonce => f.write_str("infonce"),
            Alpha::Equivalent(alpha) => alpha.fmt(f),
            Alpha::Decoupled => f.write_str("decoupled"),
        }
    }
}

impl FromStr for Alpha {
    type Err = LossError;

    fn from_str(text: &str) -> Result<Self, LossError> {
        let alpha = match text {
            "infonce" => Alpha::Infonce,
            "decoupled" => Alpha::Decoupled,
            number => match number.parse() {
                Ok(value) => Alpha::Equivalent(value),
                Err(_) => {
                    return Err(LossError::AlphaText {
                        got: text.to_owned(),
                    });
                }
            },
        };
        alpha.validate()?;
        Ok(alpha)
    }
}

impl Serialize for Alpha {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Alpha::Equivalent(alpha) => serializer.serialize_f64(*alpha),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for Alpha {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AlphaVisitor)
    }
}

/// Reads a name or any kind of number: TOML and JSON both tell integers from floats.
struct AlphaVisitor;

impl Visitor<'_> for AlphaVisitor {
    type Value = Alpha;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"infonce\", \"decoupled\" or a number above 0")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Alpha, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Alpha, E> {
        let alpha = Alpha::Equivalent(value);
        alpha.validate().map_err(E::custom)?;
        Ok(alpha)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Alpha, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Alpha, E> {
        self.visit_f64(value as f64)
    }
}

/// Everything that a user sets about the loss.
///
/// Unknown keys are errors, and both keys are required: a loss without a stated temperature is not
/// reproducible.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Temperature that similarities are divided by: finite and above 0 (SiMo and MoCo v2: 0.2,
    /// SimCLR: 0.1).
    pub temperature: f64,
    /// The negative count to be equivalent to.
    pub alpha: Alpha,
}

impl LossConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`LossError::Temperature`] and [`LossError::Alpha`].
    pub fn validate(&self) -> Result<(), LossError> {
        let got = self.temperature;
        if !(got.is_finite() && got > 0.0) {
            return Err(LossError::Temperature { got });
        }
        self.alpha.validate()
    }

    /// The margin for `negative_count` negatives, in units of similarity; 0 for InfoNCE and, with
    /// its constant taken off, for DCL.
    pub fn margin(&self, negative_count: usize) -> f64 {
        self.temperature * self.alpha.log_ratio(negative_count)
    }
}
