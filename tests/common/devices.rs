//! The devices that can be tested here.

use unforget::tape::Device;

#[cfg(all(feature = "cuda", target_os = "linux"))]
use crate::cuda_emu;

/// The processor and, with the feature `cuda`, a GPU: the machine's, or the emulated one.
pub fn in_f32() -> Vec<Device> {
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    if cuda_emu::ready() {
        return vec![Device::Cpu, Device::Cuda(0)];
    }
    vec![Device::Cpu]
}
