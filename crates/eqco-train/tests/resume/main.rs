//! A run is never lost: stopped anywhere and resumed, it leaves what an undisturbed one leaves.

mod changes;
#[path = "../clean_environment/mod.rs"]
mod clean_environment;
mod damage;
mod every_step;
mod faults;
mod images;
mod kill;
mod processes;
mod program;
mod runs;
mod vanishing;
