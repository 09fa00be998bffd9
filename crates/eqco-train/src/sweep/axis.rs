//! One varied setting and its values.

use serde_json::Value;

use super::SweepError;
use crate::cli::Flag;
use crate::config::read_value;

/// A setting that takes several values.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What the user calls it: the name of a flag, or a key.
    pub name: String,
    /// The dotted key of the configuration.
    pub key: String,
    /// The values as typed and as read, at least one.
    pub values: Vec<(String, Value)>,
}

impl Axis {
    /// Reads `KEY=A,B,C`. Commas within brackets, braces or quotes belong to a value.
    ///
    /// # Errors
    /// [`SweepError::Axis`]. Whether the key exists is for the configuration to say.
    pub fn read(text: &str) -> Result<Self, SweepError> {
        let fail = |problem: &str| SweepError::Axis {
            text: text.to_owned(),
            problem: problem.to_owned(),
        };
        let (name, values) = text.split_once('=').ok_or_else(|| fail("found no `=`"))?;
        let name = name.trim().trim_start_matches("--");
        let values = split(values);
        if name.is_empty() || values.iter().any(String::is_empty) {
            return Err(fail("found an empty name or value"));
        }
        let flag = Flag::named(name);
        let read = |text: &String| flag.map_or_else(|| read_value(text), |flag| flag.read(text));
        Ok(Self {
            name: name.to_owned(),
            key: flag.map_or(name, |flag| flag.key).to_owned(),
            values: values
                .iter()
                .map(|text| (text.clone(), read(text)))
                .collect(),
        })
    }

    /// The name without its section, for folders and tables.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// The parts between the commas that are not inside of anything.
fn split(text: &str) -> Vec<String> {
    let (mut depth, mut quote) = (0usize, None);
    let mut parts = vec![String::new()];
    for c in text.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => (),
        }
        parts.last_mut().expect("never empty").push(c);
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(text: &str) -> Vec<Value> {
        let axis = Axis::read(text).unwrap();
        axis.values.into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn axes_are_named_by_flag_or_key() {
        let axis = Axis::read("negatives=4, 16").unwrap();
        assert_eq!(
            (axis.short_name(), &*axis.key),
            ("negatives", "method.negative_count")
        );
        assert_eq!(
            axis.values,
            [("4".to_owned(), json!(4)), ("16".to_owned(), json!(16))]
        );
        let axis = Axis::read("loss.alpha=256,infonce").unwrap();
        assert_eq!((axis.short_name(), &*axis.key), ("alpha", "loss.alpha"));
        assert_eq!(
            values("alpha=0.5,decoupled"),
            [json!(0.5), json!("decoupled")]
        );
        // A folder may have a number for its name.
        assert_eq!(values("data=10"), [json!("10")]);
        let batches = ["equivalent_batch:64", "equivalent_batch:128"];
        assert_eq!(values("equivalent-batch=64,128"), batches);
    }

    #[test]
    fn commas_inside_of_values_do_not_split_them() {
        assert_eq!(
            values("data.recipe.crop_scale=[0.2, 1.0],[0.08,1]"),
            [json!([0.2, 1.0]), json!([0.08, 1])]
        );
        assert_eq!(
            values("x='a,b',\"c,[\",d"),
            [json!("a,b"), json!("c,["), json!("d")]
        );
    }

    #[test]
    fn what_is_no_axis_is_refused() {
        for text in ["negatives", "negatives=", "=4", "negatives=4,,8"] {
            let error = Axis::read(text).unwrap_err();
            assert!(error.to_string().starts_with("--vary "), "{error}");
            assert!(error.hint().unwrap().contains("--vary negatives=4"));
        }
    }
}
