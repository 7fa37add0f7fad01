//! Memory of one step: blocks handed out in order and kept from step to step.
//!
//! Rewinding resets a cursor, so the same sequence of operations gets the same blocks at the same
//! addresses, and a warm step allocates nothing.

use super::bytes::Stored;
use crate::backend::{Backend, View, ViewMut};

/// A piece of the arena, valid until the next rewind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    index: u32,
    len: u32,
}

/// A buffer taken out of the arena for writing. While it is out, reading its block panics: that a
/// destination is never also a source is checked by construction.
pub(crate) struct Lent<Buf> {
    block: Block,
    buf: Buf,
}

impl<Buf> Lent<Buf> {
    /// The whole block.
    pub fn view(&mut self) -> ViewMut<'_, Buf> {
        ViewMut {
            buf: &mut self.buf,
            offset: 0,
            len: self.block.len as usize,
        }
    }

    /// `len` numbers of the block, from `offset`.
    pub fn range(&mut self, offset: usize, len: usize) -> ViewMut<'_, Buf> {
        ViewMut {
            buf: &mut self.buf,
            offset,
            len,
        }
    }
}

pub(crate) struct Arena<B: Backend> {
    blocks: Vec<Option<B::Buf>>,
    cursor: usize,
    free: Vec<Block>,
    /// Values of this step that are bytes.
    pub(super) stored: Vec<Stored>,
}

impl<B: Backend> Arena<B> {
    pub fn new() -> Self {
        Arena {
            blocks: Vec::new(),
            cursor: 0,
            free: Vec::new(),
            stored: Vec::new(),
        }
    }

    pub fn rewind(&mut self) {
        self.cursor = 0;
        self.free.clear();
        self.stored.clear();
    }

    /// A block of `len` numbers with arbitrary content: one given back in this step if its size
    /// fits, else the next one.
    ///
    /// Running out of memory is not the caller's bug, and every operation would have to return it:
    /// the [`Error`](crate::Error) unwinds to [`Tape::guard`](crate::tape::Tape::guard) instead.
    pub fn take(&mut self, backend: &B, len: usize) -> Block {
        let fits = |b: &Block| (len..=2 * len).contains(&(b.len as usize));
        if let Some(at) = self.free.iter().rposition(fits) {
            return Block {
                len: len as u32,
                ..self.free.swap_remove(at)
            };
        }
        let index = self.cursor;
        self.cursor += 1;
        let have = self
            .blocks
            .get(index)
            .map(|b| B::capacity(b.as_ref().expect("not lent")));
        if have.is_none_or(|have| have < len) {
            let buf = backend
                .alloc(len)
                .unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)));
            match self.blocks.get_mut(index) {
                Some(slot) => *slot = Some(buf),
                None => self.blocks.push(Some(buf)),
            }
        }
        let len = u32::try_from(len).expect("a tensor has fewer than 2^32 numbers");
        Block {
            index: index as u32,
            len,
        }
    }

    /// Gives a block back for use by a later [`take`](Self::take) of the same step.
    pub fn give(&mut self, block: Block) {
        self.free.push(block);
    }

    /// Takes the buffer of `block` out for writing; [`restore`](Self::restore) puts it back.
    pub fn lend(&mut self, block: Block) -> Lent<B::Buf> {
        let buf = self.blocks[block.index as usize].take();
        Lent {
            block,
            buf: buf.expect("a block is written by one kernel at a time"),
        }
    }

    pub fn restore(&mut self, lent: Lent<B::Buf>) {
        self.blocks[lent.block.index as usize] = Some(lent.buf);
    }

    /// The whole of `block` for reading.
    pub fn view(&self, block: Block) -> View<'_, B::Buf> {
        self.range(block, 0, block.len as usize)
    }

    /// `len` numbers of `block`, from `offset`, for reading.
    pub fn range(&self, block: Block, offset: usize, len: usize) -> View<'_, B::Buf> {
        assert!(
            offset + len <= block.len as usize,
            "range outside of its block"
        );
        let buf = self.blocks[block.index as usize].as_ref();
        View {
            buf: buf.expect("a source is not also a destination"),
            offset,
            len,
        }
    }
}
