//! Tests that cross crates live in `tests/` beside this file; the README's example is compiled and run from here.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
