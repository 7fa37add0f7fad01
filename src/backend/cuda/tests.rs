//! The suite of every backend, on the machine's GPU or on the emulated one.

#[path = "../../../tests/cuda_emu/mod.rs"]
mod driver;

use super::Cuda;
use crate::backend::conformance::check_backend;

#[test]
fn the_gpu_agrees_with_the_oracle() {
    if driver::ready() {
        check_backend(|| Cuda::new(0).expect("a GPU"));
    }
}
