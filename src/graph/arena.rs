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

    /// The block it is.
    pub fn block(&self) -> Block {
        self.block
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

/// Times its length that a value may have of a block. The gradients of a ResNet go through an eighth of the longest
/// to the longest; what is shorter yet, and may be kept, is not to have its block.
const MUCH: usize = 16;

pub(crate) struct Arena<B: Backend> {
    blocks: Vec<Option<B::Buf>>,
    cursor: usize,
    /// Numbers for which each block was handed out first in this step.
    room: Vec<u32>,
    /// Blocks that were given back.
    free: Vec<u32>,
    /// Values of this step that are bytes.
    pub(super) stored: Vec<Stored>,
}

impl<B: Backend> Arena<B> {
    pub fn new() -> Self {
        Arena {
            blocks: Vec::new(),
            cursor: 0,
            room: Vec::new(),
            free: Vec::new(),
            stored: Vec::new(),
        }
    }

    pub fn rewind(&mut self) {
        self.cursor = 0;
        self.room.clear();
        self.free.clear();
        self.stored.clear();
    }

    /// A block of `len` numbers with arbitrary content: of those given back in this step the smallest
    /// that is long enough and not [much](MUCH) too long, else the next one. How long a block is in
    /// memory has no part in it, so a step goes the way it went the first time.
    ///
    /// Running out of memory is not the caller's bug, and every operation would have to return it:
    /// the [`Error`](crate::Error) unwinds to [`Tape::guard`](crate::tape::Tape::guard) instead.
    pub fn take(&mut self, backend: &B, len: usize) -> Block {
        let room = |at: &usize| self.room[self.free[*at] as usize] as usize;
        let fitting = (0..self.free.len()).filter(|at| (len..=MUCH * len).contains(&room(at)));
        // Of equal ones that which was given back last: it may still be in the cache.
        if let Some(at) = fitting.rev().min_by_key(room) {
            return Block {
                index: self.free.swap_remove(at),
                len: len as u32,
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
        self.room.push(len);
        Block {
            index: index as u32,
            len,
        }
    }

    /// Gives a block back for use by a later [`take`](Self::take) of the same step.
    pub fn give(&mut self, block: Block) {
        self.free.push(block.index);
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

#[cfg(test)]
impl<B: Backend> Arena<B> {
    /// Numbers of all blocks.
    pub fn numbers(&self) -> usize {
        let blocks = self.blocks.iter().map(|b| b.as_ref().expect("not lent"));
        blocks.map(B::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::reference::Reference;

    /// The blocks that a step gets which takes three, gives them back and takes as long ones as these.
    fn step(arena: &mut Arena<Reference<f64>>, lens: &[usize]) -> Vec<u32> {
        arena.rewind();
        let backend = Reference::default();
        let blocks = [100, 10, 160].map(|len| arena.take(&backend, len));
        blocks.into_iter().for_each(|block| arena.give(block));
        let taken = lens.iter().map(|&len| arena.take(&backend, len));
        taken.map(|block| block.index).collect()
    }

    #[test]
    fn a_block_is_the_shortest_that_fits() {
        let mut arena = Arena::new();
        assert_eq!(step(&mut arena, &[20, 8, 150]), [0, 1, 2]);
        assert_eq!(step(&mut arena, &[100, 101, 101]), [0, 2, 3]);
        // A block of ten numbers is not for none, nor one of 160 for nine.
        assert_eq!(step(&mut arena, &[9, 9, 9, 0]), [1, 0, 3, 4]);
    }

    #[test]
    fn of_equal_blocks_the_last_is_taken_and_is_whole_again_when_it_is_given_back() {
        let (mut arena, backend) = (Arena::new(), Reference::<f64>::default());
        let blocks = [(); 3].map(|()| arena.take(&backend, 100));
        for block in [blocks[1], blocks[2], blocks[0]] {
            arena.give(block);
        }
        let [first, second] = [100, 50].map(|len| arena.take(&backend, len));
        assert_eq!([first.index, second.index], [0, 2]);
        arena.give(second);
        assert_eq!(arena.take(&backend, 100).index, 2);
    }

    #[test]
    fn what_other_steps_took_changes_nothing() {
        let lens = [90, 30, 101, 9, 170];
        let mut arena = Arena::new();
        let first = step(&mut arena, &lens);
        let room = arena.numbers();
        assert_eq!(step(&mut arena, &lens), first);
        assert_eq!(arena.numbers(), room);
        // Another step has blocks of its own lengths.
        arena.rewind();
        (0..6).for_each(|i| _ = arena.take(&Reference::default(), 2000 - i));
        assert_eq!(step(&mut arena, &lens), first);
    }
}
