//! Data sets and the batches made of them.

mod dataset;

pub mod cifar;
pub mod download;
pub mod embedded;
pub mod folder;
pub mod idx;
pub mod locate;
pub mod npy;

pub use dataset::{Dataset, Pixels};
