//! Data sets and the batches made of them.
//!
//! [`Dataset`] holds the pixels once, as they were stored. A [`ClassificationDataset`] is a view of
//! one or several of them: which samples, in which order, under which labels, with which pixels
//! rearranged, and with which [`Transform`] for training and evaluation. Nothing is copied until
//! a sample is written into a batch.

pub mod cifar;
mod dataset;
pub mod download;
pub mod embedded;
pub mod folder;
pub mod idx;
pub mod locate;
pub mod npy;
mod transform;
mod view;

pub use dataset::{Dataset, Pixels};
pub use transform::{Group, Transform, TransformGroups};
pub use view::{ClassificationDataset, OUTSIDE, RawSample};
