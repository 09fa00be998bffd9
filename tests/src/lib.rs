//! Tests that cross crates live in `tests/` beside this file.
