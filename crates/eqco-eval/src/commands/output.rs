//! How results leave the program.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

use super::subjects::{CheckpointOrigin, Row};

/// The JSON form: `{"checkpoint": {…}, "results": {"pretrained": {…}, …}}`, every result with its
/// protocol.
#[derive(Serialize)]
struct Report<'a> {
    checkpoint: &'a CheckpointOrigin,
    results: Map<String, Value>,
}

/// Prints results as one JSON object.
pub(super) fn print_json<Outcome: Serialize>(
    checkpoint: &CheckpointOrigin,
    outcomes: &[(Row, Outcome)],
) -> Result<()> {
    let results = outcomes
        .iter()
        .map(|(row, outcome)| Ok((row.key().to_owned(), serde_json::to_value(outcome)?)));
    let results = results.collect::<Result<_>>()?;
    print(&serde_json::to_string_pretty(&Report {
        checkpoint,
        results,
    })?)
}

/// Prints a line or several. Nobody listening any more (`| head`) is the reader's choice.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
