//! How results leave the program.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

use super::source::Provenance;

/// The JSON form: `{"checkpoint": {…}, "computed_on": {…}, "results": {"pretrained": {…}, …}}`, every result with its
/// protocol.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    results: Map<String, Value>,
}

/// Results by their keys as the text of one JSON object.
pub(super) fn as_json<Outcome: Serialize>(
    provenance: &Provenance,
    outcomes: impl IntoIterator<Item = (impl Into<String>, Outcome)>,
) -> Result<String> {
    let results = outcomes
        .into_iter()
        .map(|(key, outcome)| Ok((key.into(), serde_json::to_value(outcome)?)));
    let results = results.collect::<Result<_>>()?;
    Ok(serde_json::to_string_pretty(&Report {
        provenance,
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
