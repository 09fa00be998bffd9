//! Time and memory of the fused loss beside the naive form.

fn main() {}
