//! Rules on one file at a time: its name, its size, its text.

use super::{Finding, TrackedFile};

const MOST_LINES_OF_RUST: usize = 600;
const MOST_LINES_OF_ARCHITECTURE: usize = 250;
const MOST_BYTES: usize = 2 << 20;
/// The embedded images are the one thing that is large on purpose.
const EMBEDDED_SET: &str = "data/embedded/";
const MOST_BYTES_OF_EMBEDDED_SET: usize = 8 << 20;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];
/// Written in halves, so that this file passes its own rule.
const UNFINISHED: [&str; 5] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
];
const SOURCE_ENDINGS: [&str; 8] = [".rs", ".py", ".cu", ".cuh", ".toml", ".yml", ".yaml", ".sh"];

type Rule = fn(&TrackedFile) -> Vec<Finding>;
const RULES: [Rule; 7] = [
    file_length,
    telling_name,
    finished,
    no_ignored_test,
    small_file,
    begins_with_documentation,
    short_architecture,
];

/// Applies every rule of this module.
pub fn check(file: &TrackedFile) -> Vec<Finding> {
    RULES.iter().flat_map(|rule| rule(file)).collect()
}

/// A file of Rust has at most 600 lines.
fn file_length(file: &TrackedFile) -> Vec<Finding> {
    at_most_lines(file, file.path.ends_with(".rs"), MOST_LINES_OF_RUST)
}

/// ARCHITECTURE.md is read in one sitting.
fn short_architecture(file: &TrackedFile) -> Vec<Finding> {
    let applies = file.path == "ARCHITECTURE.md";
    at_most_lines(file, applies, MOST_LINES_OF_ARCHITECTURE)
}

fn at_most_lines(file: &TrackedFile, applies: bool, most: usize) -> Vec<Finding> {
    let lines = file.text().map_or(0, |text| text.lines().count());
    if !applies || lines <= most {
        return Vec::new();
    }
    vec![file.finding(
        most + 1,
        format!("{lines} lines, at most {most} are allowed"),
    )]
}

/// No file or folder is called `utils` or the like.
fn telling_name(file: &TrackedFile) -> Vec<Finding> {
    let stem = |part: &str| part.split('.').next().unwrap_or_default().to_lowercase();
    let empty = file
        .path
        .split('/')
        .find(|part| EMPTY_NAMES.contains(&stem(part).as_str()));
    empty
        .map(|name| file.finding(1, format!("`{name}` says nothing about what is inside")))
        .into_iter()
        .collect()
}

/// Nothing is left for later in the sources.
fn finished(file: &TrackedFile) -> Vec<Finding> {
    if !SOURCE_ENDINGS.iter().any(|end| file.path.ends_with(end)) {
        return Vec::new();
    }
    lines_with(file, |line| {
        let marker = UNFINISHED.iter().find(|marker| has_word(line, marker))?;
        Some(format!("`{marker}` does not belong into a commit"))
    })
}

/// A test that does not run is no test.
fn no_ignored_test(file: &TrackedFile) -> Vec<Finding> {
    if !file.path.ends_with(".rs") {
        return Vec::new();
    }
    lines_with(file, |line| {
        let attribute = line.trim_start();
        let ignored = attribute.starts_with(concat!("#[", "ignore"));
        ignored.then(|| "an ignored test".to_owned())
    })
}

/// Clones stay small.
fn small_file(file: &TrackedFile) -> Vec<Finding> {
    let most = if file.path.starts_with(EMBEDDED_SET) {
        MOST_BYTES_OF_EMBEDDED_SET
    } else {
        MOST_BYTES
    };
    if file.bytes.len() <= most {
        return Vec::new();
    }
    let size = file.bytes.len();
    vec![file.finding(1, format!("{size} bytes, at most {most} are allowed"))]
}

/// Each source file says what it is for before anything else.
fn begins_with_documentation(file: &TrackedFile) -> Vec<Finding> {
    let in_sources = file.path.starts_with("crates/") && file.path.contains("/src/");
    let applies = file.path.ends_with(".rs") && (in_sources || file.path.starts_with("xtask/src/"));
    let first = file.text().and_then(|text| text.lines().next());
    let documented = first.is_some_and(|line| {
        line.strip_prefix("//!")
            .is_some_and(|rest| !rest.trim().is_empty())
            || line.starts_with("#![doc")
    });
    if !applies || documented {
        return Vec::new();
    }
    vec![file.finding(1, "the file does not begin with a `//!` line")]
}

fn lines_with(file: &TrackedFile, complaint: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let lines = file.text().unwrap_or_default().lines().enumerate();
    lines
        .filter_map(|(index, line)| Some(file.finding(index + 1, complaint(line)?)))
        .collect()
}

/// Does `line` hold `word` that is not a part of a longer word?
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    let open_ended = !word.ends_with(part_of_word);
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && (open_ended || !after.is_some_and(part_of_word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `path:line` of all findings.
    fn places(path: &str, text: &str) -> Vec<usize> {
        let findings = check(&TrackedFile::new(path, text));
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn long_files_are_found() {
        let lines = |count: usize| format!("//! doc\n{}", "x\n".repeat(count - 1));
        assert_eq!(places("crates/a/src/a.rs", &lines(600)), [0; 0]);
        assert_eq!(places("crates/a/src/a.rs", &lines(601)), [601]);
        assert_eq!(places("ARCHITECTURE.md", &lines(250)), [0; 0]);
        assert_eq!(places("ARCHITECTURE.md", &lines(251)), [251]);
        assert_eq!(places("README.md", &lines(700)), [0; 0]);
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for path in [
            "python/utils.py",
            "tests/common/mod.rs",
            "a/Helpers.rs",
            "misc",
        ] {
            assert_eq!(places(path, ""), [1], "{path}");
        }
        for path in ["python/commons.py", "a/utility_bound.rs", "a/helped.rs"] {
            assert_eq!(places(path, ""), [0; 0], "{path}");
        }
    }

    #[test]
    fn unfinished_work_is_found() {
        for marker in UNFINISHED {
            let text = format!("//! doc\n\n    {marker} x)\n");
            assert_eq!(places("tests/a.rs", &text), [3], "{marker}");
            assert_eq!(places("notes.md", &text), [0; 0], "{marker}");
        }
        let longer = format!("my_{} and {}S\n", UNFINISHED[0], UNFINISHED[3]);
        assert_eq!(places("tests/a.rs", &longer), [0; 0]);
    }

    #[test]
    fn ignored_tests_are_found() {
        let text = concat!("#[test]\n    #[", "ignore = \"slow\"]\nfn f() {}\n");
        assert_eq!(places("tests/a.rs", text), [2]);
    }

    #[test]
    fn large_files_are_found() {
        let large = "x".repeat(MOST_BYTES + 1);
        assert_eq!(places("data/large.bin", &large), [1]);
        assert_eq!(places("data/large.bin", &large[1..]), [0; 0]);
        assert_eq!(places("data/embedded/images.gz", &large), [0; 0]);
    }

    #[test]
    fn sources_without_a_first_line_of_documentation_are_found() {
        assert_eq!(places("crates/a/src/lib.rs", "use x;\n"), [1]);
        assert_eq!(places("crates/a/src/lib.rs", "//!\n//! late\n"), [1]);
        assert_eq!(places("crates/a/src/b/mod.rs", ""), [1]);
        assert_eq!(places("crates/a/src/lib.rs", "//! What it is.\n"), [0; 0]);
        assert_eq!(places("crates/a/benches/b.rs", "use x;\n"), [0; 0]);
    }
}
