//! Replay buffers: what is kept of the past.
//!
//! Avalanche's buffers divide their capacity over groups (classes, or experiences) and keep a uniform
//! sample of each group in a [`Reservoir`]; the paper's [`GlobalReservoir`] is one uniform sample of
//! the whole stream. Samples are stored as they came, uint8 where the data is uint8, with the logits
//! that the network gave them where the method wants logits.

mod buffer;
mod dataset;
mod global;
mod reservoir;
mod state;

pub use buffer::{Buffer, ClassBalancedBuffer, ExperienceBalancedBuffer};
pub use global::GlobalReservoir;
pub use reservoir::{Item, Reservoir};
pub(crate) use state::TransformTable;
