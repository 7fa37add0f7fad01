//! Finding the GPU, and saying in one sentence why there is none.
#![allow(
    unsafe_code,
    reason = "looking for the driver's library and asking its version are foreign calls"
)]

use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, sys};
use std::sync::Arc;

/// The oldest driver interface that reads our PTX (ISA 8.0): CUDA 12.0, which is driver 525.
const OLDEST_DRIVER: i32 = 12_000;

/// The oldest architecture that our PTX is for.
const OLDEST_GPU: (i32, i32) = (8, 0);

const USE_CPU: &str = "use --device cpu";

/// A context on GPU `ordinal`.
///
/// # Errors
/// [`Error::Device`] when there is no driver, no such GPU, or one of them is too old.
pub(super) fn context(ordinal: usize) -> Result<Arc<CudaContext>> {
    driver()?;
    let count = result::device::get_count().map_err(|e| refused("count the GPUs", e))?;
    if count == 0 {
        return Err(no_gpu());
    }
    if ordinal >= count as usize {
        let last = count - 1;
        return Err(Error::Device(format!(
            "--device cuda:{ordinal}: there {}; GPUs are numbered from 0",
            if last == 0 {
                "is only cuda:0".to_string()
            } else {
                format!("are only cuda:0 to cuda:{last}")
            }
        )));
    }
    let context = CudaContext::new(ordinal).map_err(|e| refused("open the GPU", e))?;
    let capability = context
        .compute_capability()
        .map_err(|e| refused("ask the GPU for its architecture", e))?;
    if capability < OLDEST_GPU {
        let (major, minor) = capability;
        return Err(Error::Device(format!(
            "cuda:{ordinal} ({}) has compute capability {major}.{minor}; 8.0 (Ampere, 2020) or later \
             is needed; {USE_CPU}",
            context.name().unwrap_or_default()
        )));
    }
    Ok(context)
}

/// Whether a GPU could be opened at all, for `--device auto`: the driver is there and counts one.
pub(crate) fn available() -> bool {
    driver().is_ok() && matches!(result::device::get_count(), Ok(1..))
}

/// Loads and initialises the driver. cudarc panics where the library is missing, so it is looked
/// for first.
fn driver() -> Result<()> {
    let names = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];
    // SAFETY: the initialisers of NVIDIA's driver library, which is what these names belong to, ask
    // for nothing; cudarc is about to load the same library.
    let loads = |name: &&str| unsafe { libloading::Library::new(*name) }.is_ok();
    if !names.iter().any(loads) {
        return Err(Error::Device(format!(
            "no NVIDIA driver found (libcuda.so.1): install the driver, version 525 or later, or {USE_CPU}"
        )));
    }
    let mut version = 0;
    // SAFETY: the function writes one integer to a valid place and may be called before all others.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|e| refused("ask the driver for its version", e))?;
    if version < OLDEST_DRIVER {
        return Err(Error::Device(format!(
            "the NVIDIA driver supports CUDA {}.{}; 12.0 or later is needed: install driver 525 or \
             later, or {USE_CPU}",
            version / 1000,
            version % 1000 / 10
        )));
    }
    result::init().map_err(|e| match e.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => no_gpu(),
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => Error::Device(format!(
            "the NVIDIA driver's library and kernel module have different versions: restart the \
             machine, or {USE_CPU}"
        )),
        _ => refused("start the driver", e),
    })
}

fn no_gpu() -> Error {
    Error::Device(format!(
        "the NVIDIA driver is there but finds no GPU (CUDA_VISIBLE_DEVICES may hide it); {USE_CPU}"
    ))
}

/// The driver did not do what was asked.
pub(super) fn refused(action: &str, error: DriverError) -> Error {
    let hint = match error.0 {
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            ": the driver is too old for the kernels, install version 525 or later"
        }
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => {
            ": the GPU is too old for the kernels, 8.0 (Ampere) or later is needed"
        }
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            ": the GPU has no memory left, other programs may hold it"
        }
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => ": another program has the GPU to itself",
        _ => "",
    };
    Error::Device(format!(
        "CUDA cannot {action}: {:?}{hint}; or {USE_CPU}",
        error.0
    ))
}
