//! A page about runs: one HTML file that works offline, from the run folders that `eqco-train` writes.
//!
//! [`find_runs`] looks for run folders, [`Run::read`] reads one, [`choose_for_pictures`] says whose encoder is worth
//! looking at, [`Pictures::new`] makes pictures of its representation, and [`write_report`] writes the page with all charts
//! and pictures beside it. Everything is read tolerantly: a run that has not ended or was made by another version lacks
//! some values, and the page shows `–` for them.

mod alarms;
mod batch_statistics;
mod chart;
mod curves;
mod embedding_map;
mod error;
mod evaluation;
mod figure;
mod find;
mod groups;
mod html;
mod metrics;
mod neighbours;
mod page;
mod pictures;
mod principal_components;
mod provenance;
mod run;
mod series;
mod settings;
mod sweep;
mod tables;
mod topics;
mod write;

pub use error::ReportError;
pub use find::find_runs;
pub use pictures::{Pictures, choose_for_pictures};
pub use run::Run;
pub use write::{PictureSection, WrittenReport, write_report};
