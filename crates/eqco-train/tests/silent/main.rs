//! Numbers that cannot go wrong in silence: steps that are not finite, embeddings that collapse, secrets that leak.

#[path = "../clean_environment/mod.rs"]
mod clean_environment;
mod collapse;
mod dry_run;
mod program;
mod secrets;
mod skipped_steps;
mod stopped_runs;
