//! Data sets and the batches made of them.
//!
//! [`Dataset`] holds the pixels once, as they were stored. A [`ClassificationDataset`] is a view of
//! one or several of them: which samples, in which order, under which labels, with which pixels
//! rearranged, and with which [`Transform`] for training and evaluation. Nothing is copied until
//! a sample is written into a batch.

mod augment;
pub mod cifar;
pub mod core50;
mod dataset;
pub mod download;
pub mod embedded;
pub mod folder;
mod gather;
pub mod idx;
pub mod locate;
pub mod npy;
pub mod on_disk;
mod pickle;
mod pictures;
mod resize;
mod rotation;
pub mod tiny_imagenet;
mod transform;
mod view;

pub use dataset::{Dataset, Pixels};
pub use gather::gather_rows;
pub(crate) use gather::row_key;
pub use rotation::{pillow_rotation_map, rotation_map};
pub use transform::{Group, Transform, TransformGroups};
pub use view::{ClassificationDataset, OUTSIDE, RawSample};
