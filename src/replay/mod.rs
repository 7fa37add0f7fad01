//! Replay buffers: what is kept of the past.
//!
//! A buffer divides its capacity over groups (classes, or experiences) and keeps a uniform sample of
//! each group in a [`Reservoir`]. Samples are stored as they came, uint8 where the data is uint8,
//! with the logits that the network gave them where the method wants logits.

mod buffer;
mod reservoir;
mod state;

pub use buffer::{Buffer, ClassBalancedBuffer, ExperienceBalancedBuffer};
pub use reservoir::{Item, Reservoir};
pub(crate) use state::TransformTable;
