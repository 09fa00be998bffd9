//! Self-supervised contrastive pre-training of image encoders.

pub mod cli;
pub mod commands;
pub mod config;
pub mod epoch;
pub mod final_table;
pub mod hint;
pub mod interrupt;
pub mod machine;
pub mod metrics;
pub mod plan;
pub mod progress;
pub mod run_folder;
pub mod step;
