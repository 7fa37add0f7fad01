//! Every call of the driver that computes: memory, copies, launches, on one stream.
//!
//! The stream runs what it is given in order, so nothing here waits but the copies to the host. What
//! the driver refuses unwinds with an [`Error`], as running out of memory does
//! (see [`Tape::guard`](crate::tape::Tape::guard)): an operation has no way to return it.
#![allow(
    unsafe_code,
    reason = "launches and copies are foreign calls on device memory"
)]

use super::kernels::{Kernel, Kernels};
use super::probe::{self, refused};
use crate::backend::{View, ViewMut, Write};
use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUdevice_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use std::ffi::c_void;
use std::sync::Arc;

/// Device memory for f32 numbers.
pub struct Buffer {
    memory: CudaSlice<f32>,
}

impl Buffer {
    /// How many numbers it holds.
    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    /// The address of number `offset` on the device.
    fn address(&self, offset: usize) -> u64 {
        // With one stream there is no event to wait for or to record.
        let (first, _nothing) = self.memory.device_ptr(self.memory.stream());
        first + (offset * size_of::<f32>()) as u64
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg<'a> {
    /// A number or an address of at most eight bytes, in the lowest of them.
    Word(u64),
    /// A structure of 32-bit integers, passed by value.
    Struct(&'a [i32]),
}

macro_rules! arg_from {
    ($($type:ty: $x:ident => $word:expr;)+) => {
        $(impl From<$type> for Arg<'_> {
            fn from($x: $type) -> Self {
                Arg::Word($word)
            }
        })+
    };
}

arg_from! {
    u64: x => x;
    i64: x => x as u64;
    u32: x => x.into();
    i32: x => x as u32 as u64;
    f32: x => x.to_bits().into();
    bool: x => x.into();
    Write: x => (x == Write::Add).into();
    View<'_, Buffer>: x => x.buf.address(x.offset);
    &ViewMut<'_, Buffer>: x => x.buf.address(x.offset);
    Option<View<'_, Buffer>>: x => x.map_or(0, |x| x.buf.address(x.offset));
}

impl<'a, const N: usize> From<&'a [i32; N]> for Arg<'a> {
    fn from(x: &'a [i32; N]) -> Self {
        Arg::Struct(x)
    }
}

/// Most arguments of a kernel.
const MAX_ARGS: usize = 16;

/// One GPU with its stream and its kernels.
pub(super) struct Driver {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: Kernels,
    /// Multiprocessors, each of which runs several blocks at a time.
    pub(super) processors: usize,
}

impl Driver {
    pub(super) fn open(ordinal: usize) -> Result<Self> {
        let context = probe::context(ordinal)?;
        // SAFETY: events order the work of several streams; all memory here belongs to one.
        unsafe { context.disable_event_tracking() };
        let stream = (context.new_stream()).map_err(|e| refused("make a stream", e))?;
        let processors = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(|e| refused("ask the GPU for its size", e))?;
        Ok(Driver {
            kernels: Kernels::load(&context)?,
            processors: processors.max(1) as usize,
            context,
            stream,
        })
    }

    /// The GPU's own name.
    pub(super) fn name(&self) -> String {
        self.context.name().unwrap_or_else(|_| "GPU".into())
    }

    /// Zeroed memory for `len` numbers (and for one, if that is none).
    pub(super) fn alloc(&self, len: usize) -> Result<Buffer> {
        let memory = self.stream.alloc_zeros(len.max(1));
        let memory = memory.map_err(|e| self.no_memory(len, e))?;
        Ok(Buffer { memory })
    }

    fn no_memory(&self, len: usize, error: DriverError) -> Error {
        if error.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return refused("get memory", error);
        }
        let mb = |bytes: usize| bytes as f64 / 1e6;
        let (free, total) = self.context.mem_get_info().unwrap_or_default();
        Error::Device(format!(
            "no memory for {:.1} MB on {}, {:.0} of {:.0} MB are free: try a smaller --train-mb-size, \
             --eval-mb-size or model, or --device cpu",
            mb(len * size_of::<f32>()),
            self.name(),
            mb(free),
            mb(total)
        ))
    }

    /// Copies host numbers to the device. They may change as soon as this returns.
    pub(super) fn upload(&self, dst: ViewMut<'_, Buffer>, src: &[f32]) {
        assert_eq!(dst.len, src.len(), "upload: numbers for a view");
        check(dst.buf, dst.offset, dst.len);
        if src.is_empty() {
            return;
        }
        let address = dst.buf.address(dst.offset);
        self.bind();
        // SAFETY: the view lies inside its buffer, which is memory of this context. From memory that is
        // not page-locked the driver copies before it returns.
        let copied = unsafe { result::memcpy_htod_async(address, src, self.stream.cu_stream()) };
        done("copy to the GPU", copied);
    }

    /// Copies device numbers to the host, after everything that was launched before.
    pub(super) fn download(&self, src: View<'_, Buffer>, dst: &mut [f32]) {
        assert_eq!(src.len, dst.len(), "download: numbers of a view");
        check(src.buf, src.offset, src.len);
        if dst.is_empty() {
            return;
        }
        let address = src.buf.address(src.offset);
        self.bind();
        // SAFETY: as for `upload`; `dst` outlives the copy because of the wait.
        let copied = unsafe { result::memcpy_dtoh_async(dst, address, self.stream.cu_stream()) };
        done("copy from the GPU", copied);
        done("finish its work", self.stream.synchronize());
    }

    /// Runs a kernel with these arguments, which must be those of its source, on a grid of blocks.
    /// An empty grid is no launch.
    pub(super) fn launch(
        &self,
        kernel: Kernel,
        grid: [usize; 3],
        block: [u32; 3],
        args: &[Arg<'_>],
    ) {
        if grid.contains(&0) {
            return;
        }
        let mut words = [0_u64; MAX_ARGS];
        let mut pointers = [std::ptr::null_mut::<c_void>(); MAX_ARGS];
        for ((arg, word), pointer) in args.iter().zip(&mut words).zip(&mut pointers) {
            *pointer = match arg {
                Arg::Word(value) => {
                    *word = *value;
                    std::ptr::from_mut(word).cast()
                }
                Arg::Struct(numbers) => numbers.as_ptr().cast_mut().cast(),
            };
        }
        let [x, y, z] = grid.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        self.bind();
        // SAFETY: a pointer to each argument, which the driver copies before it returns; all words are
        // little endian, so a narrower number is in the first bytes. That number, type and order fit
        // the kernel, and that it stays inside its views, is what the conformance suite checks, under
        // an emulator that faults on any access outside of an allocation.
        let launched = unsafe {
            result::launch_kernel(
                self.kernels.get(kernel).cu_function(),
                (x, y, z),
                (block[0], block[1], block[2]),
                0,
                self.stream.cu_stream(),
                &mut pointers[..args.len()],
            )
        };
        if let Err(error) = launched {
            fail(&format!("run {} on {grid:?} blocks", kernel.name()), error);
        }
    }

    /// Makes the context current for this thread: another one may have opened it.
    fn bind(&self) {
        done("bind the GPU to a thread", self.context.bind_to_thread());
    }
}

/// Panics if a view leaves its buffer.
fn check(buffer: &Buffer, offset: usize, len: usize) {
    assert!(
        offset + len <= buffer.len(),
        "a view lies inside its buffer"
    );
}

fn done(action: &str, result: std::result::Result<(), DriverError>) {
    if let Err(error) = result {
        fail(action, error);
    }
}

fn fail(action: &str, error: DriverError) -> ! {
    std::panic::resume_unwind(Box::new(refused(action, error)))
}
