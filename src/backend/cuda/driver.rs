//! Every call of the driver that computes: memory, copies, launches, on one stream.
//!
//! Launches and uploads are only written down (see [`sequence`](super::sequence)) until somebody
//! wants numbers back or memory is given back; then the sequence goes to the GPU, as a captured graph
//! if the same one has been there before. Nothing waits for the GPU but the copies to the host, and an
//! upload that would be two sequences ahead of it.
//!
//! What the driver refuses unwinds with an [`Error`], as running out of memory does (see
//! [`Tape::guard`](crate::tape::Tape::guard)): an operation has no way to return it.
#![allow(
    unsafe_code,
    reason = "launches and copies are foreign calls on device memory"
)]

use super::kernels::{Kernel, Kernels};
use super::probe::{self, refused};
use super::sequence::{Arg, Command, Sequence};
use crate::backend::{View, ViewMut, Write};
use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    CUdevice_attribute, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode,
};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaGraph, CudaSlice, CudaStream, DevicePtr, PinnedHostSlice,
};
use std::ffi::c_void;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard};

/// Set to 0, every launch is made by itself: for finding the one that fails.
const GRAPHS: &str = "UNFORGET_CUDA_GRAPHS";

/// Most arguments of a kernel.
const MAX_ARGS: usize = 16;

/// Numbers in each half of the page-locked memory that uploads go through.
const HALF: usize = 1 << 19;

/// An upload of more than that goes by itself.
const MAX_STAGED: usize = HALF / 2;

/// A sequence is sent off when it has grown this long.
const MAX_COMMANDS: usize = 4096;

/// Fewer commands are not worth a graph.
const MIN_CAPTURED: usize = 4;

/// Graphs kept: training with full and with last batches, evaluation with both from either half of the staging
/// memory, and room to spare.
const MAX_GRAPHS: usize = 16;

/// Sequences remembered by their hash, to see whether one comes again.
const MAX_SEEN: usize = 64;

/// Device memory for f32 numbers.
pub struct Buffer {
    memory: CudaSlice<f32>,
    gpu: Arc<Gpu>,
}

impl Buffer {
    /// How many numbers it holds.
    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    /// The address of number `offset` on the device.
    pub(super) fn address(&self, offset: usize) -> u64 {
        // With one stream there is no event to wait for or to record.
        let (first, _nothing) = self.memory.device_ptr(self.memory.stream());
        first + (offset * size_of::<f32>()) as u64
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // What was written down may use this memory. A failure here shows again at the next call.
        let _ = self.gpu.flush();
    }
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
    i32: x => (x as u32).into();
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

/// One GPU with its stream and its kernels.
struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: Kernels,
    queue: Mutex<Queue>,
}

/// A sequence in the driver's own form.
struct Captured {
    sequence: Sequence,
    graph: CudaGraph,
    /// The flush that used it last.
    used: u64,
}

// SAFETY: a graph may be used by one thread at a time, and this one lies behind the queue's lock; cudarc
// makes the context current for the calling thread before each use.
unsafe impl Send for Captured {}

/// What is written down and not yet sent off.
struct Queue {
    pending: Sequence,
    staging: PinnedHostSlice<f32>,
    /// The half of the staging memory that `pending` uploads from.
    half: usize,
    /// Numbers of it that are taken.
    staged: usize,
    /// Whether the GPU may still read each half for what was sent off.
    in_flight: [bool; 2],
    /// What comes to pass when the GPU has read each half.
    read: [CudaEvent; 2],
    /// Sequences that come again become graphs.
    captures: bool,
    graphs: Vec<Captured>,
    /// Hashes of sequences that came once, the oldest first.
    seen: Vec<u64>,
    flushes: u64,
}

impl Gpu {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere leaves the lists whole.
        self.queue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn flush(&self) -> Result<(), DriverError> {
        self.send(&mut self.queue())
    }

    /// Sends off what is written down, and goes on.
    fn send(&self, queue: &mut Queue) -> Result<(), DriverError> {
        let uploads = queue.staged > 0;
        self.hand_over(queue)?;
        if uploads {
            queue.read[queue.half].record(&self.stream)?;
        }
        Ok(())
    }

    /// Sends off what is written down; a wait follows. It is forgotten even if that fails.
    fn hand_over(&self, queue: &mut Queue) -> Result<(), DriverError> {
        if queue.pending.is_empty() {
            return Ok(());
        }
        queue.flushes += 1;
        queue.in_flight[queue.half] |= queue.staged > 0;
        queue.staged = 0;
        let sequence = std::mem::take(&mut queue.pending);
        let result = self.send_sequence(queue, &sequence);
        queue.pending = sequence;
        queue.pending.clear();
        result
    }

    fn send_sequence(&self, queue: &mut Queue, sequence: &Sequence) -> Result<(), DriverError> {
        // Asking for the slice asks for an event, which must not be done during a capture.
        let staging = queue.staging.as_slice()?;
        if !queue.captures || sequence.commands.len() < MIN_CAPTURED {
            return self.run(sequence, staging);
        }
        let now = queue.flushes;
        if let Some(known) = queue.graphs.iter_mut().find(|g| g.sequence == *sequence) {
            known.used = now;
            return known.graph.launch();
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(sequence);
        if !queue.seen.contains(&hash) {
            if queue.seen.len() == MAX_SEEN {
                queue.seen.remove(0);
            }
            queue.seen.push(hash);
            return self.run(sequence, staging);
        }
        let Some(graph) = self.capture(sequence, staging) else {
            // Nothing has run. A driver that cannot capture this costs time, not the run.
            queue.captures = false;
            return self.run(sequence, staging);
        };
        graph.launch()?;
        if queue.graphs.len() == MAX_GRAPHS {
            let oldest = (0..MAX_GRAPHS).min_by_key(|&i| queue.graphs[i].used);
            queue.graphs.swap_remove(oldest.unwrap_or(0));
        }
        queue.graphs.push(Captured {
            sequence: sequence.clone(),
            graph,
            used: now,
        });
        Ok(())
    }

    /// The sequence as a graph, without running it.
    fn capture(&self, sequence: &Sequence, staging: &[f32]) -> Option<CudaGraph> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).ok()?;
        let recorded = self.run(sequence, staging);
        // Also after a failure: the stream must leave its capture.
        let graph = self.stream.end_capture(CUgraphInstantiate_flags(0));
        recorded.and(graph).ok()?
    }

    /// Hands every command to the stream.
    fn run(&self, sequence: &Sequence, staging: &[f32]) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        let stream = self.stream.cu_stream();
        for command in &sequence.commands {
            match *command {
                Command::Launch {
                    kernel,
                    grid,
                    block,
                    args: (first, end),
                } => {
                    let mut pointers = [std::ptr::null_mut::<c_void>(); MAX_ARGS];
                    let args = &sequence.args[first as usize..end as usize];
                    for (pointer, &word) in pointers.iter_mut().zip(args) {
                        let word: *const u64 = &raw const sequence.words[word as usize];
                        *pointer = word.cast_mut().cast();
                    }
                    // SAFETY: a pointer to each argument, which the driver copies before it returns;
                    // words are little endian, so a narrower number is in the first bytes, and a
                    // structure's words follow one another. That number, type and order fit the kernel,
                    // and that it stays inside its views, is what the conformance suite checks, under an
                    // emulator that faults on any access outside of an allocation.
                    unsafe {
                        result::launch_kernel(
                            self.kernels.get(kernel).cu_function(),
                            grid.into(),
                            block.into(),
                            0,
                            stream,
                            &mut pointers[..args.len()],
                        )
                    }?;
                }
                Command::Upload { to, from, len } => {
                    let numbers = &staging[from..from + len];
                    // SAFETY: `to` and `len` are a view inside of its buffer, and freeing a buffer
                    // flushes first; a half of the staging memory is not written again before the GPU
                    // has read it.
                    unsafe { result::memcpy_htod_async(to, numbers, stream) }?;
                }
            }
        }
        Ok(())
    }

    /// Waits for everything that was sent off.
    fn wait(&self, queue: &mut Queue) -> Result<(), DriverError> {
        self.stream.synchronize()?;
        queue.in_flight = [false; 2];
        Ok(())
    }

    /// Chooses the half of the staging memory for a sequence: the first if the GPU has read it, so that a
    /// host that waits in every step writes the same sequence in every step; else the one that it has read, or
    /// will have read first. So the host prepares one sequence while the GPU is busy with another.
    fn choose_half(&self, queue: &mut Queue) -> Result<(), DriverError> {
        let other = 1 - queue.half;
        queue.half = queue
            .in_flight
            .iter()
            .position(|busy| !busy)
            .unwrap_or(other);
        if std::mem::take(&mut queue.in_flight[queue.half]) {
            queue.read[queue.half].synchronize()?;
        }
        Ok(())
    }

    /// Writes down an upload of few numbers, which go into the staging memory.
    fn stage(&self, queue: &mut Queue, to: u64, numbers: &[f32]) -> Result<(), DriverError> {
        if queue.staged + numbers.len() > HALF {
            self.send(queue)?;
        }
        if queue.staged == 0 {
            self.choose_half(queue)?;
        }
        let from = queue.half * HALF + queue.staged;
        queue.staging.as_mut_slice()?[from..from + numbers.len()].copy_from_slice(numbers);
        queue.staged += numbers.len();
        queue.pending.upload(to, from, numbers.len());
        Ok(())
    }
}

/// The GPU as the primitives use it.
pub(super) struct Driver {
    gpu: Arc<Gpu>,
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
        // SAFETY: every number is written before it is read: an upload writes what it then copies.
        let staging = unsafe { context.alloc_pinned(2 * HALF) };
        let event = || (context.new_event(None)).map_err(|e| refused("make an event", e));
        let queue = Queue {
            pending: Sequence::default(),
            staging: staging.map_err(|e| refused("get page-locked memory", e))?,
            half: 0,
            staged: 0,
            in_flight: [false; 2],
            read: [event()?, event()?],
            captures: std::env::var(GRAPHS).map_or(true, |value| value != "0"),
            graphs: Vec::new(),
            seen: Vec::new(),
            flushes: 0,
        };
        let gpu = Gpu {
            kernels: Kernels::load(&context)?,
            context,
            stream,
            queue: Mutex::new(queue),
        };
        Ok(Driver {
            gpu: Arc::new(gpu),
            processors: processors.max(1) as usize,
        })
    }

    /// The GPU's own name.
    pub(super) fn name(&self) -> String {
        self.gpu.context.name().unwrap_or_else(|_| "GPU".into())
    }

    /// Zeroed memory for `len` numbers (and for one, if that is none).
    pub(super) fn alloc(&self, len: usize) -> Result<Buffer> {
        let memory = self.gpu.stream.alloc_zeros(len.max(1));
        Ok(Buffer {
            memory: memory.map_err(|e| self.no_memory(len, e))?,
            gpu: Arc::clone(&self.gpu),
        })
    }

    fn no_memory(&self, len: usize, error: DriverError) -> Error {
        if error.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return refused("get memory", error);
        }
        let mb = |bytes: usize| bytes as f64 / 1e6;
        let (free, total) = self.gpu.context.mem_get_info().unwrap_or_default();
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
        let (address, mut queue) = (dst.buf.address(dst.offset), self.gpu.queue());
        if src.len() <= MAX_STAGED {
            return done("copy to the GPU", self.gpu.stage(&mut queue, address, src));
        }
        let sent = self.gpu.send(&mut queue);
        done("run what comes before a copy", sent);
        done("use the GPU", self.gpu.context.bind_to_thread());
        // SAFETY: the view lies inside its buffer, which is memory of this context. From memory that is
        // not page-locked the driver copies before it returns.
        let copied =
            unsafe { result::memcpy_htod_async(address, src, self.gpu.stream.cu_stream()) };
        done("copy to the GPU", copied);
    }

    /// Copies bytes to where `buffer` has number `offset`, before anything that is only written down, and
    /// without becoming part of it: for memory that nothing written down uses.
    pub(super) fn upload_bytes(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) {
        check(buffer, offset, bytes.len().div_ceil(size_of::<f32>()));
        let _queue = self.gpu.queue();
        done("use the GPU", self.gpu.context.bind_to_thread());
        let (to, stream) = (buffer.address(offset), self.gpu.stream.cu_stream());
        // SAFETY: as for `upload`.
        let copied = unsafe { result::memcpy_htod_async(to, bytes, stream) };
        done("copy to the GPU", copied);
    }

    /// Sends off what is written down.
    pub(super) fn send(&self) {
        done("run the kernels", self.gpu.flush());
    }

    /// Bytes that are free on the GPU.
    pub(super) fn free_memory(&self) -> usize {
        self.gpu.context.mem_get_info().map_or(0, |(free, _)| free)
    }

    /// Copies device numbers to the host, after everything that was launched before.
    pub(super) fn download(&self, src: View<'_, Buffer>, dst: &mut [f32]) {
        assert_eq!(src.len, dst.len(), "download: numbers of a view");
        check(src.buf, src.offset, src.len);
        if dst.is_empty() {
            return;
        }
        let (address, mut queue) = (src.buf.address(src.offset), self.gpu.queue());
        done("run the kernels", self.gpu.hand_over(&mut queue));
        done("use the GPU", self.gpu.context.bind_to_thread());
        // SAFETY: as for `upload`; `dst` outlives the copy because of the wait.
        let copied =
            unsafe { result::memcpy_dtoh_async(dst, address, self.gpu.stream.cu_stream()) };
        done("copy from the GPU", copied);
        done("finish its work", self.gpu.wait(&mut queue));
    }

    /// Waits until everything has been computed.
    pub(super) fn finish(&self) {
        let mut queue = self.gpu.queue();
        done("run the kernels", self.gpu.hand_over(&mut queue));
        done("finish its work", self.gpu.wait(&mut queue));
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
        assert!(args.len() <= MAX_ARGS, "arguments of {}", kernel.name());
        // A size that does not fit is one that the driver refuses.
        let grid = grid.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let mut queue = self.gpu.queue();
        queue.pending.launch(kernel, grid, block, args);
        if queue.pending.commands.len() >= MAX_COMMANDS {
            done("run the kernels", self.gpu.send(&mut queue));
        }
    }
}

/// Panics if a view leaves its buffer.
fn check(buffer: &Buffer, offset: usize, len: usize) {
    assert!(
        offset + len <= buffer.len(),
        "a view lies inside its buffer"
    );
}

fn done(action: &str, result: Result<(), DriverError>) {
    if let Err(error) = result {
        std::panic::resume_unwind(Box::new(refused(action, error)));
    }
}
