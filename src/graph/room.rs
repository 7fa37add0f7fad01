//! Memory for the gradients of a backward pass.

use super::Graph;
use crate::backend::Backend;

/// Gradients that a chain of operations needs at a time: the one that is read and the one that is written.
const AT_A_TIME: usize = 2;

impl<B: Backend> Graph<B> {
    /// Makes room for the gradients of a backward pass from node `last` on. Activations mostly shrink on the way
    /// through a network, so gradients grow on the way back, and each would find the blocks of those before it too
    /// short. Therefore some are taken at once that are long enough for all of them.
    pub(crate) fn make_room(&mut self, last: usize) {
        self.params.make_room(&self.backend);
        let wanted = self.nodes[..=last].iter().filter(|node| node.needs_grad);
        let longest = wanted.map(|node| node.shape.len()).max().unwrap_or(0);
        let blocks = [(); AT_A_TIME].map(|()| self.arena.take(&self.backend, longest));
        blocks.into_iter().for_each(|block| self.arena.give(block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::reference::Reference;
    use crate::graph::Mode;
    use crate::shape::Shape;

    /// Values that shrink to a half and a half again on the way to the loss: gradients of all lengths take turns in
    /// two blocks.
    #[test]
    fn gradients_of_all_lengths_share_blocks() {
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        g.begin(Mode::Train);
        let len = 1 << 10;
        let x = g.input(Shape::new(&[len, 1]), &vec![0.5; len], true);
        let mut y = x;
        for rows in [len, len / 2, len / 4, len / 8] {
            let half = g.slice(y, 0, rows);
            y = g.scale(half, 0.5);
        }
        let target = g.input(Shape::new(&[len / 8, 1]), &vec![0.0; len / 8], false);
        let loss = g.mse(y, target);
        let before = g.arena.numbers();
        g.backward(loss);
        assert_eq!(g.arena.numbers() - before, 2 * len + 1);
        assert!(g.read_grad(x).is_some());
    }
}
