//! Tests of the public interface, one theme a file.

mod batches;
mod bounds;
mod gradients;
mod input_errors;
mod margins;
mod nt_xent;
mod own_image;
mod precision;
mod properties;
mod sampling;
mod stored_batches;
mod stored_cases;
mod threads;
mod vector_file;
