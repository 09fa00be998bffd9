//! Numbers that cannot go wrong in silence: steps that are not finite, embeddings that collapse, secrets that leak.

mod collapse;
mod dry_run;
mod program;
mod secrets;
mod skipped_steps;
mod stopped_runs;
