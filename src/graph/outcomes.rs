//! What became of the mini-batches of an evaluation: kept on the device until somebody asks, so that no
//! mini-batch has to be waited for.

use super::{Graph, Var};
use crate::backend::{Backend, Elem, View, ViewMut};

/// Numbers that are kept at least before they have to be read.
const ROOM: usize = 1 << 16;

/// The device's list, and what the host knows of it.
pub(crate) struct Outcomes<B: Backend> {
    /// See [`Backend::note_outcome`].
    ledger: Option<B::Buf>,
    taken: usize,
    /// Which columns the second prediction is chosen from, there and here.
    keep: Option<B::Buf>,
    kept: Vec<B::Elem>,
}

impl<B: Backend> Default for Outcomes<B> {
    fn default() -> Self {
        Outcomes {
            ledger: None,
            taken: 0,
            keep: None,
            kept: Vec::new(),
        }
    }
}

/// Memory for `len` numbers; that there is none unwinds as it does in the arena.
fn memory<B: Backend>(backend: &B, buf: &mut Option<B::Buf>, len: usize) {
    if buf.as_ref().is_none_or(|buf| B::capacity(buf) < len) {
        let bigger = backend.alloc(len);
        *buf = Some(bigger.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error))));
    }
}

impl<B: Backend> Graph<B> {
    /// Notes the value of `loss`, and for each row of `logits` (`[N, C]`) the column of its largest number
    /// and that of the largest one among `classes`. Nothing is waited for. True if there is no room for
    /// another mini-batch like this one before [`take_outcomes`](Self::take_outcomes).
    ///
    /// # Panics
    /// If there is no room for this one.
    #[track_caller]
    pub(crate) fn note_outcome(&mut self, logits: Var, loss: Var, classes: &[u32]) -> bool {
        let (loss, node) = (self.node(loss), self.node(logits));
        let (n, c) = (node.shape.dim(0), node.shape.dim(1));
        let Outcomes {
            ledger,
            taken,
            keep,
            kept,
        } = &mut self.outcomes;
        let numbers = 1 + 2 * n;
        if *taken == 0 {
            memory(&self.backend, ledger, 1 + numbers.max(ROOM));
        }
        memory(&self.backend, keep, c);
        let (Some(ledger), Some(keep)) = (ledger, keep) else {
            unreachable!("memory unwinds");
        };
        let room = B::capacity(ledger) - 1;
        assert!(
            *taken + numbers <= room,
            "note_outcome: nobody took the others"
        );
        let mut at = ViewMut {
            buf: ledger,
            offset: 0,
            len: 1,
        };
        if *taken == 0 {
            self.backend.fill(at.reborrow(), B::Elem::default());
        }
        self.staging.clear();
        self.staging.resize(c, B::Elem::default());
        for &class in classes.iter().filter(|&&class| (class as usize) < c) {
            self.staging[class as usize] = B::Elem::from_f64(1.0);
        }
        if *kept != self.staging {
            kept.clone_from(&self.staging);
            let all = ViewMut {
                buf: &mut *keep,
                offset: 0,
                len: c,
            };
            self.backend.upload(all, kept);
        }
        *taken += numbers;
        at.len = 1 + *taken;
        self.backend.note_outcome(
            at,
            self.arena.range(loss.value, 0, 1),
            self.arena.range(node.value, 0, n * c),
            View {
                buf: keep,
                offset: 0,
                len: c,
            },
        );
        *taken + numbers > room
    }

    /// Puts what was noted since the last time into `out`: for each mini-batch its loss, then two columns
    /// for each row, -1 where there is none.
    pub(crate) fn take_outcomes(&mut self, out: &mut Vec<f32>) {
        let taken = std::mem::take(&mut self.outcomes.taken);
        out.clear();
        let Some(ledger) = self.outcomes.ledger.as_ref().filter(|_| taken > 0) else {
            return;
        };
        self.staging.clear();
        self.staging.resize(taken, B::Elem::default());
        let all = View {
            buf: ledger,
            offset: 1,
            len: taken,
        };
        self.backend.download(all, &mut self.staging);
        out.extend_from_slice(&Elem::to_f32s(&self.staging));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::reference::Reference;
    use crate::graph::Mode;
    use crate::shape::Shape;

    #[test]
    fn outcomes_come_back_in_order_and_once() {
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        let mut out = vec![7.0];
        g.take_outcomes(&mut out);
        assert!(out.is_empty());
        for round in 0..2 {
            for (n, classes) in [(2, [1, 2]), (1, [0, 9])] {
                g.begin(Mode::Eval);
                let x = [0.5, 0.25, 0.125, 3.0, 3.5, 4.0];
                let logits = g.input(Shape::new(&[n, 3]), &x[..3 * n], false);
                let loss = g.input(Shape::new(&[1]), &[n as f64], false);
                assert!(!g.note_outcome(logits, loss, &classes), "round {round}");
            }
            g.take_outcomes(&mut out);
            assert_eq!(out, [2.0, 0.0, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn it_is_said_when_the_room_is_used_up() {
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        let (n, mut out) = (ROOM / 8, Vec::new());
        let note = |g: &mut Graph<_>| {
            g.begin(Mode::Eval);
            let logits = g.input(Shape::new(&[n, 1]), &vec![0.0; n], false);
            let loss = g.input(Shape::new(&[1]), &[0.0], false);
            g.note_outcome(logits, loss, &[])
        };
        let full = [note(&mut g), note(&mut g), note(&mut g)];
        assert_eq!(full, [false, false, true]);
        g.take_outcomes(&mut out);
        assert_eq!((out.len(), out[2]), (3 * (1 + 2 * n), -1.0));
        assert!(!note(&mut g));
    }
}
