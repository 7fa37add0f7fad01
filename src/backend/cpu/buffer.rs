//! Memory of the CPU backend: numbers that start on a cache line.

use crate::backend::{View, ViewMut};
use crate::error::{Error, Result};

/// Numbers in a cache line, which is also the widest vector register.
const LINE: usize = 16;

/// One cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Numbers in host memory, aligned to 64 bytes.
pub struct Buffer(Vec<Line>);

impl Buffer {
    /// Zeroed memory for at least `len` numbers.
    pub(super) fn zeroed(len: usize) -> Result<Self> {
        let lines = len.div_ceil(LINE);
        let mut buf = Vec::new();
        buf.try_reserve_exact(lines).map_err(|reason| {
            Error::Device(format!(
                "cannot have {len} numbers of memory ({reason}); use a smaller model or batch"
            ))
        })?;
        buf.resize(lines, Line([0.0; LINE]));
        Ok(Buffer(buf))
    }

    /// All the numbers.
    pub(super) fn numbers(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }

    /// All the numbers, to write.
    fn numbers_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// The numbers that a view shows.
pub(super) fn slice(view: View<'_, Buffer>) -> &[f32] {
    &view.buf.numbers()[view.offset..][..view.len]
}

/// The bytes of the numbers that a view shows.
pub(super) fn bytes(view: View<'_, Buffer>) -> &[u8] {
    bytemuck::cast_slice(slice(view))
}

/// The bytes of the numbers that a view shows, to write.
pub(super) fn bytes_mut(view: ViewMut<'_, Buffer>) -> &mut [u8] {
    bytemuck::cast_slice_mut(slice_mut(view))
}

/// The numbers that a view shows, to write.
pub(super) fn slice_mut(view: ViewMut<'_, Buffer>) -> &mut [f32] {
    &mut view.buf.numbers_mut()[view.offset..][..view.len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_large_enough() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let buffer = Buffer::zeroed(len).unwrap();
            let numbers = buffer.numbers();
            assert!(numbers.len() >= len && numbers.iter().all(|&x| x == 0.0));
            assert_eq!(numbers.as_ptr().addr() % 64, 0, "{len} numbers");
        }
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        let error = Buffer::zeroed(usize::MAX).err().unwrap();
        assert!(matches!(error, Error::Device(_)), "{error}");
    }
}
