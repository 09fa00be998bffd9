//! Prints a resolved configuration with the origin of every value that something has set.

use super::Resolved;

/// Where comments start, so that they line up.
const COMMENT_COLUMN: usize = 40;

pub(super) fn annotated(resolved: &Resolved) -> String {
    let mut text = format!("# preset {}\n", resolved.preset);
    let mut section = String::new();
    for line in resolved.config.to_toml().lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = format!("{name}.");
        }
        let field = line
            .split_once(" = ")
            .map(|(field, _)| format!("{section}{field}"));
        match field.and_then(|key| resolved.origins.get(&key)) {
            Some(origin) => text.push_str(&format!("{line:<COMMENT_COLUMN$} # {origin}\n")),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}
