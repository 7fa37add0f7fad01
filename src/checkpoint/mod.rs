//! What outlives the program: weights alone, and whole checkpoints from which a run goes on exactly
//! where it was cut. Both are safetensors files that PyTorch reads.

mod model;
mod run;

pub(crate) use model::write_atomically;
pub use model::{load_model, save_model};
pub use run::{maybe_load_checkpoint, read_snapshot, save_checkpoint, write_snapshot};
