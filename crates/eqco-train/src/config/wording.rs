//! Turns what parsers say into what a person can use.

/// Below this Jaro-Winkler similarity a suggestion would mislead more than help.
const LEAST_SIMILARITY: f64 = 0.7;

/// The known key that looks most like `key`.
///
/// A key without its section (`temperature`) finds the full one (`loss.temperature`).
pub(super) fn nearest_key(key: &str, known: &[String]) -> Option<String> {
    let field = last_part(key);
    known
        .iter()
        .map(|candidate| {
            let whole = strsim::jaro_winkler(key, candidate);
            let same_field = if last_part(candidate) == field {
                1.0
            } else {
                0.0
            };
            (candidate, whole + same_field)
        })
        .filter(|(_, similarity)| *similarity >= LEAST_SIMILARITY)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(candidate, _)| candidate.clone())
}

/// The name in `known`, which must not be empty, that looks most like `name`.
pub(super) fn nearest_name<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known
        .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)))
        .unwrap_or_default()
}

/// Rewrites serde's `invalid type: FOUND, expected WANTED` as `expected WANTED, found FOUND`, with the names of
/// Rust's number types replaced by words. Other messages pass unchanged.
pub(super) fn expected_found(message: &str) -> String {
    let Some((found, wanted)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    for prefix in [
        "invalid type: ",
        "invalid value: ",
        "invalid length ",
        "unknown variant ",
    ] {
        if let Some(found) = found.strip_prefix(prefix) {
            let unit = if prefix == "invalid length " {
                "an array of length "
            } else {
                ""
            };
            return format!("expected {}, found {unit}{found}", in_words(wanted));
        }
    }
    message.to_owned()
}

/// The field of serde's `unknown field `NAME`, expected ...`.
pub(super) fn unknown_field(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

fn in_words(wanted: &str) -> &str {
    match wanted {
        "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a boolean" => "true or false",
        _ => wanted,
    }
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}
