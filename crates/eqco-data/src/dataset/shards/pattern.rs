//! Patterns like `train-{000000..000123}.tar`, which name files that there are.

use std::path::{Path, PathBuf};

use crate::DataError;

/// Most files of one pattern.
const MOST_FILES: usize = 1_000_000;

/// Longest pattern in bytes, as paths are on Linux.
const LONGEST: usize = 4096;

/// Whether a path is no file or folder, but has braces like a pattern.
pub(in super::super) fn is_pattern(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains('{') && text.contains('}') && !path.exists()
}

/// The files that a pattern names, all of which have to be there.
pub(super) fn files(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let problem = |found: String| {
        let expected = "a pattern like train-{000000..000123}.tar or {train,val}-{00..15}.tar";
        DataError::layout(pattern, expected, found)
    };
    let text = pattern.to_str().filter(|text| text.len() <= LONGEST);
    let text = text.ok_or_else(|| problem(format!("no text of at most {LONGEST} bytes")))?;
    let mut files: Vec<PathBuf> = expand(text)
        .map_err(problem)?
        .into_iter()
        .map(PathBuf::from)
        .collect();
    files.sort_unstable();
    if let Some(pair) = files.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(problem(format!("`{}` twice", pair[0].display())));
    }
    let missing: Vec<&PathBuf> = files.iter().filter(|path| !path.is_file()).collect();
    match missing.first() {
        None => Ok(files),
        Some(first) => {
            let expected = format!("the {} files of this pattern", files.len());
            let found = format!("no `{}` ({} are missing)", first.display(), missing.len());
            Err(DataError::layout(pattern, expected, found))
        }
    }
}

/// All texts that a pattern stands for, as in a shell: `{a,b}` and `{08..11}`, one within the other, too.
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else {
        return match pattern.contains('}') {
            true => Err("a brace that is not opened".to_owned()),
            false => Ok(vec![pattern.to_owned()]),
        };
    };
    let (before, inner) = (&pattern[..open], &pattern[open + 1..]);
    if before.contains('}') {
        return Err("a brace that is not opened".to_owned());
    }
    let (mut depth, mut commas, mut close) = (0usize, Vec::new(), None);
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                close = Some(at);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => commas.push(at),
            _ => (),
        }
    }
    let close = close.ok_or("a brace that is not closed")?;
    let (inner, after) = (&inner[..close], &inner[close + 1..]);
    let mut choices = Vec::new();
    if commas.is_empty() {
        choices = range(inner)?;
    } else {
        let mut begin = 0;
        for end in commas.into_iter().chain([inner.len()]) {
            choices.extend(expand(&inner[begin..end])?);
            begin = end + 1;
        }
    }
    let endings = expand(after)?;
    if choices.len().saturating_mul(endings.len()) > MOST_FILES {
        return Err(format!("more than {MOST_FILES} names"));
    }
    let all = choices.iter().flat_map(|choice| {
        endings
            .iter()
            .map(move |ending| format!("{before}{choice}{ending}"))
    });
    Ok(all.collect())
}

/// The numbers of `08..11`, as wide as they are written.
fn range(text: &str) -> Result<Vec<String>, String> {
    let problem = || format!("`{{{text}}}`");
    let (first, last) = text.split_once("..").ok_or_else(problem)?;
    let number = |digits: &str| {
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse::<u64>().ok())
            .flatten()
            .ok_or_else(problem)
    };
    let (from, to) = (number(first)?, number(last)?);
    if from > to {
        return Err(problem());
    }
    if to - from >= MOST_FILES as u64 {
        return Err(format!("more than {MOST_FILES} names"));
    }
    let padded = [first, last]
        .iter()
        .any(|digits| digits.len() > 1 && digits.starts_with('0'));
    let width = if padded {
        first.len().max(last.len())
    } else {
        0
    };
    Ok((from..=to)
        .map(|number| format!("{number:0width$}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lists_are_those_of_a_shell() {
        for (pattern, expected) in [
            ("a.tar", "a.tar"),
            ("a-{08..11}.tar", "a-08.tar a-09.tar a-10.tar a-11.tar"),
            ("a-{9..11}", "a-9 a-10 a-11"),
            ("{0..0}", "0"),
            ("{000..2}", "000 001 002"),
            ("{a,b}/{1..2}.tar", "a/1.tar a/2.tar b/1.tar b/2.tar"),
            ("x{t-{0..1},v-{00..01},}", "xt-0 xt-1 xv-00 xv-01 x"),
        ] {
            assert_eq!(expand(pattern).unwrap().join(" "), expected, "{pattern}");
        }
        assert_eq!(expand("{000000..000123}.tar").unwrap()[123], "000123.tar");
    }

    #[test]
    fn wrong_patterns_are_refused_before_names_are_made() {
        for (pattern, found) in [
            ("a{0..1", "not closed"),
            ("a}0{0..1}", "not opened"),
            ("{0..1}}", "not opened"),
            ("{1..0}", "`{1..0}`"),
            ("{a..c}", "`{a..c}`"),
            ("{}", "`{}`"),
            ("{-1..3}", "`{-1..3}`"),
            ("{0..99999999999999999999}", "`{0..99"),
            ("{0..18446744073709551615}", "more than 1000000"),
            ("{0..999}{0..1000}", "more than 1000000"),
            ("{0..9999}{0..9999}{0..9999}", "more than 1000000"),
        ] {
            let problem = expand(pattern).map(|names| names.len()).unwrap_err();
            assert!(problem.contains(found), "{pattern}: {problem}");
        }
        assert_eq!(expand("{0..999}{0..999}").unwrap().len(), 1_000_000);
    }
}
