//! What the GPU is to do next, written down before any of it is done.
//!
//! A training step records the same launches with the same arguments as the step before: the arena
//! hands out the same addresses, and what changes from step to step (samples, labels, the number of
//! the step) is uploaded. So two sequences can be compared word by word, and one that comes again is
//! replayed as a captured graph, which costs the host one call instead of dozens.

use super::kernels::Kernel;

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg<'a> {
    /// A number or an address of at most eight bytes, in the lowest of them.
    Word(u64),
    /// A structure of 32-bit integers, passed by value.
    Struct(&'a [i32]),
}

/// One thing to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Command {
    /// Run a kernel.
    Launch {
        kernel: Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        /// Its arguments, as a range of the sequence's list.
        args: (u32, u32),
    },
    /// Copy numbers of the staging memory to the device.
    Upload {
        /// Address on the device.
        to: u64,
        /// First number in the staging memory.
        from: usize,
        len: usize,
    },
}

/// Commands in order, with the words of their arguments.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct Sequence {
    pub(super) commands: Vec<Command>,
    /// For each argument its first word.
    pub(super) args: Vec<u32>,
    pub(super) words: Vec<u64>,
}

impl Sequence {
    pub(super) fn launch(
        &mut self,
        kernel: Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        args: &[Arg<'_>],
    ) {
        let first = self.args.len() as u32;
        for arg in args {
            self.args.push(self.words.len() as u32);
            match arg {
                Arg::Word(word) => self.words.push(*word),
                // As the structure lies in memory: the first of two in the lower half.
                Arg::Struct(numbers) => self.words.extend(numbers.chunks(2).map(|pair| {
                    let bits = |i: usize| u64::from(pair.get(i).copied().unwrap_or(0) as u32);
                    bits(0) | bits(1) << 32
                })),
            }
        }
        let command = Command::Launch {
            kernel,
            grid,
            block,
            args: (first, self.args.len() as u32),
        };
        self.commands.push(command);
    }

    pub(super) fn upload(&mut self, to: u64, from: usize, len: usize) {
        self.commands.push(Command::Upload { to, from, len });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.commands.clear();
        self.args.clear();
        self.words.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last: u64) -> Sequence {
        let mut s = Sequence::default();
        s.upload(64, 0, 3);
        let args = [Arg::Word(7), Arg::Struct(&[1, -2, 3]), Arg::Word(last)];
        s.launch(Kernel::Fill, [2, 1, 1], [256, 1, 1], &args);
        s
    }

    #[test]
    fn sequences_are_equal_when_every_word_is() {
        assert_eq!(sequence(5), sequence(5));
        assert_ne!(sequence(5), sequence(6));
        let mut longer = sequence(5);
        longer.upload(64, 3, 1);
        assert_ne!(longer, sequence(5));
    }

    #[test]
    fn a_structure_lies_in_words_as_in_memory() {
        let s = sequence(5);
        assert_eq!(s.args, [0, 1, 3]);
        let bytes: Vec<u8> = s.words[1..3].iter().flat_map(|w| w.to_le_bytes()).collect();
        let want = [1_i32, -2, 3, 0].map(i32::to_le_bytes).concat();
        assert_eq!(bytes, want);
    }
}
