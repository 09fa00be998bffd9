//! `eqco-eval report` as a user meets it: run folders in, one page out.

mod browser;
mod pages;
mod run_folders;
