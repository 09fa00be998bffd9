//! Alpha by rule: the count that a method's recipe has, or that a batch of some size would have.
//!
//! `"auto"` and `"equivalent_batch:256"` may stand for the number in `loss.alpha`. They are replaced by it before the
//! configuration is read, so that a run folder always holds the number itself.

use std::borrow::Cow;

use eqco_core::Alpha;
use eqco_models::method::MethodName;
use serde::Deserialize;
use serde_json::Value;

use super::TrainConfig;

/// Stands before the size of the batch in the rule that `--equivalent-batch` stands for.
pub const EQUIVALENT_BATCH: &str = "equivalent_batch:";

/// The name of the other rule.
const AUTO: &str = "auto";

/// SiMo's alpha (EqCo, arXiv 2010.01929, section 4).
const SIMO_RECIPE: u64 = 256;
/// The length of MoCo v2's queue (arXiv 2003.04297).
const MOCO_RECIPE: u64 = 65_536;
/// The batch of our SimCLR preset; 510 negatives a query.
const SIMCLR_RECIPE_BATCH: u64 = 256;

/// The settings with a rule in `loss.alpha` replaced by the number that it gives for their method.
///
/// The error is what is wrong, in words.
pub(super) fn filled_in(tree: &Value) -> Result<Cow<'_, Value>, String> {
    let Some(rule) = tree.pointer("/loss/alpha") else {
        return Ok(Cow::Borrowed(tree));
    };
    let Some(alpha) = by_rule(rule, tree)? else {
        return Ok(Cow::Borrowed(tree));
    };
    let mut tree = tree.clone();
    tree["loss"]["alpha"] = Value::from(alpha);
    Ok(Cow::Owned(tree))
}

/// The number that `rule` gives; `None` if it is no rule.
fn by_rule(rule: &Value, tree: &Value) -> Result<Option<u64>, String> {
    let method = || {
        MethodName::deserialize(&tree["method"]["name"])
            .map_err(|_| "depends on the method, which is not known".to_owned())
    };
    if rule == AUTO {
        let alpha = match method()? {
            MethodName::Simo => SIMO_RECIPE,
            MethodName::MocoV2 => MOCO_RECIPE,
            MethodName::Simclr => 2 * SIMCLR_RECIPE_BATCH - 2,
        };
        return Ok(Some(alpha));
    }
    let Some(batch) = rule
        .as_str()
        .and_then(|rule| rule.strip_prefix(EQUIVALENT_BATCH))
    else {
        return Ok(None);
    };
    // More than any batch, and far from where 2B - 2 would overflow.
    let size = batch.trim().parse().ok();
    let Some(batch) = size.filter(|batch: &u64| (2..=1 << 40).contains(batch)) else {
        return Err(format!("expected a batch of 2 images or more, got {batch}"));
    };
    match method()? {
        MethodName::Simo => Ok(Some(batch - 1)),
        MethodName::Simclr => Ok(Some(2 * batch - 2)),
        MethodName::MocoV2 => Err(
            "the negatives of moco_v2 are its queue, whatever the batch: give the length to be equivalent to as --alpha"
                .to_owned(),
        ),
    }
}

/// One line that says what margin a run has and why, for people.
pub fn explain_margin(config: &TrainConfig) -> String {
    let negatives = config
        .method
        .negatives_per_query(config.data.loader.batch_size);
    let (temperature, alpha) = (config.loss.temperature, config.loss.alpha);
    match alpha {
        Alpha::Infonce => {
            format!("0, plain InfoNCE: alpha is the {negatives} negatives themselves")
        }
        Alpha::Decoupled => "without: the positive is left out of the denominator (DCL)".to_owned(),
        Alpha::Equivalent(equivalent) => {
            let margin = config.loss.margin(negatives);
            let effect = if equivalent >= negatives as f64 {
                "the scale of loss and gradient is"
            } else {
                "with fewer than there are, the scale of loss and gradient is"
            };
            format!(
                "{margin:.4} = {temperature} x ln({equivalent} / {negatives}): {effect} that of {equivalent} negatives"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Preset;

    fn alpha(rule: Value, method: &str) -> Result<Value, String> {
        let tree = json!({"method": {"name": method}, "loss": {"alpha": rule}});
        Ok(filled_in(&tree)?["loss"]["alpha"].clone())
    }

    #[test]
    fn rules_give_the_counts_of_their_methods() {
        let batch = |batch: &str| json!(format!("{EQUIVALENT_BATCH}{batch}"));
        assert_eq!(alpha(json!("auto"), "simo").unwrap(), 256);
        assert_eq!(alpha(json!("auto"), "moco_v2").unwrap(), 65_536);
        assert_eq!(alpha(json!("auto"), "simclr").unwrap(), 510);
        assert_eq!(alpha(batch("4096"), "simo").unwrap(), 4095);
        assert_eq!(alpha(batch("4096"), "simclr").unwrap(), 8190);
        assert!(
            alpha(batch("4096"), "moco_v2")
                .unwrap_err()
                .contains("--alpha")
        );
        assert!(alpha(batch("1"), "simo").unwrap_err().contains("got 1"));
        assert!(alpha(batch("2.5"), "simo").unwrap_err().contains("got 2.5"));
        for other in [
            json!(12.5),
            json!("infonce"),
            json!("decoupled"),
            json!("aut"),
        ] {
            assert_eq!(alpha(other.clone(), "simo").unwrap(), other);
        }
    }

    #[test]
    fn the_margin_is_explained_with_its_numbers() {
        let mut config = Preset::named("demo").unwrap().config().unwrap();
        let line = explain_margin(&config);
        // 0.2 * ln(256 / 16)
        assert!(line.starts_with("0.5545 = 0.2 x ln(256 / 16): "), "{line}");
        config.loss.alpha = Alpha::Equivalent(4.0);
        assert!(explain_margin(&config).starts_with("-0.2773 = "));
        config.loss.alpha = Alpha::Infonce;
        assert!(explain_margin(&config).starts_with("0, plain InfoNCE"));
    }
}
