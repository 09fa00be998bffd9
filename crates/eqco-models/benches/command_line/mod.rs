//! What every bench of this crate is told: `[--threads N] [--only PART_OF_A_NAME]`.

/// Builds the pool of `--threads`, prints how many they are, and returns what the names of `--only` contain.
pub fn read() -> String {
    let threads =
        argument("--threads").map_or(1, |count| count.parse().expect("--threads takes a number"));
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .expect("the pool is built once");
    println!("threads: {threads}");
    argument("--only").unwrap_or_default()
}

/// What follows a flag on the command line.
fn argument(flag: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != flag).nth(1)
}
