//! Seeded random numbers.
//!
//! Two families, for two needs:
//!
//! * **Sequential, compatible**: [`TorchGenerator`] and [`NumpyRandomState`] run the Mersenne
//!   Twister ([`Mt19937`]) with PyTorch's and NumPy's own recipes, so a seed gives the class order,
//!   pixel permutations, initial weights, batches and replay buffer that the same seed gives in
//!   Python. [`PythonRandom`] and [`python_set_order`] add the other sources of order in an
//!   Avalanche run.
//! * **Addressed**: [`CounterRng`] computes the numbers of (seed, purpose, step, sample) directly,
//!   in any order and on any thread or device. Per-sample randomness comes from here, so results
//!   never depend on how work was divided.
//!
//! [`Mt19937`] and [`CounterRng`] implement the core traits of the `rand` crate, so every
//! distribution of `rand` works on them.

mod counter;
mod mt19937;
mod normal;
mod numpy;
mod python_random;
mod python_set;
mod torch;

pub(crate) use counter::philox4x32_10_lanes;
pub use counter::{CounterKey, CounterRng, Purpose};
pub use mt19937::Mt19937;
pub use numpy::NumpyRandomState;
pub use python_random::PythonRandom;
pub use python_set::python_set_order;
pub use torch::{MAX_RANDPERM, TorchGenerator};
