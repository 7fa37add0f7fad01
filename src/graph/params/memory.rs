//! Memory for parameters, their gradients and their momentum: each is taken when it is first wanted.
//!
//! Models that are only evaluated have no gradients, and plain SGD has no momentum.

use super::Params;
use crate::backend::{Backend, Elem, View, ViewMut, Write};

impl<B: Backend> Params<B> {
    /// Gives back the room that was left for more parameters while a model was built.
    pub fn fit(&mut self, backend: &B) {
        if std::mem::take(&mut self.roomy) && B::capacity(&self.values) > self.len {
            self.values = copied(backend, &self.values, self.len, self.len);
        }
    }

    /// Makes room for gradients; those that are there stay.
    pub fn make_room(&mut self, backend: &B) {
        let have = B::capacity(&self.grads);
        grow(backend, &mut self.grads, have, self.len);
    }

    /// Makes room for momentum; what is there stays.
    pub(super) fn make_room_for_momentum(&mut self, backend: &B) {
        let have = B::capacity(&self.momentum);
        grow(backend, &mut self.momentum, have, self.len);
    }
}

/// Makes room for `want` numbers, keeping the first `have`; zeros beyond.
pub(super) fn grow<B: Backend>(backend: &B, buf: &mut B::Buf, have: usize, want: usize) {
    if B::capacity(buf) < want {
        *buf = copied(backend, buf, have, want.max(2 * B::capacity(buf)));
    }
}

/// Room for `want` numbers, of which the first `have` are those of `buf`; zeros beyond.
fn copied<B: Backend>(backend: &B, buf: &B::Buf, have: usize, want: usize) -> B::Buf {
    let other = backend.alloc(want);
    let mut other = other.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)));
    let (offset, len) = (0, have);
    let dst = ViewMut {
        buf: &mut other,
        offset,
        len,
    };
    let src = View { buf, offset, len };
    backend.scale_add(dst, src, B::Elem::from_f64(1.0), Write::Set);
    other
}

#[cfg(test)]
mod tests {
    use crate::backend::reference::Reference;
    use crate::backend::{Backend, SgdStep};
    use crate::graph::{Graph, Mode, ParamId, ParamLayout};
    use crate::shape::Shape;

    type Oracle = Graph<Reference<f64>>;

    const PLAIN: SgdStep = SgdStep {
        lr: 1.0,
        momentum: 0.0,
        dampening: 0.0,
        weight_decay: 0.0,
        nesterov: false,
        first: false,
    };
    const HEAVY: SgdStep = SgdStep {
        momentum: 0.5,
        ..PLAIN
    };

    fn parameter(g: &mut Oracle, name: &str) -> ParamId {
        let layout = ParamLayout::Plain(Shape::new(&[1, 1]));
        g.parameter(name, layout, &[8.0])
    }

    /// Gradients of 1 for these parameters, beside those there are.
    fn backward(g: &mut Oracle, ids: &[ParamId]) {
        for &id in ids {
            let w = g.weight(id);
            g.backward(w);
        }
    }

    /// Room for values, gradients and momentum.
    fn room(g: &Oracle) -> [usize; 3] {
        [&g.params.values, &g.params.grads, &g.params.momentum].map(Reference::<f64>::capacity)
    }

    #[test]
    fn memory_is_taken_when_it_is_wanted() {
        let mut g = Graph::new(Reference::default()).unwrap();
        let ids = ["a", "b", "c"].map(|name| parameter(&mut g, name));
        let len = g.params.len;
        assert!(room(&g)[0] > len, "for more parameters");
        g.begin(Mode::Train);
        assert_eq!(room(&g), [len, 0, 0]);
        backward(&mut g, &ids);
        g.sgd(PLAIN);
        assert_eq!(room(&g), [len, len, 0]);
        g.sgd(HEAVY);
        assert_eq!(room(&g), [len; 3]);
        assert_eq!(g.params.read(&g.backend, ids[2]), [6.0]);
    }

    #[test]
    fn gradients_and_momentum_stay_when_parameters_are_added() {
        let mut g = Graph::new(Reference::default()).unwrap();
        let ids = ["a", "b"].map(|name| parameter(&mut g, name));
        g.begin(Mode::Train);
        backward(&mut g, &ids);
        g.sgd(HEAVY);
        let more = ["c", "d"].map(|name| parameter(&mut g, name));
        backward(&mut g, &[more[1], ids[1]]);
        g.sgd(HEAVY);
        let value = |id| g.params.read(&g.backend, id)[0];
        // Velocities 1, then 1/2 + 1 and 1/2 + 2; 1 for what is new; nothing for what has no gradient.
        let values = [ids[0], ids[1], more[0], more[1]].map(value);
        assert_eq!(values, [8.0 - 2.5, 8.0 - 3.5, 8.0, 7.0]);
    }

    #[test]
    fn there_is_room_for_what_comes_without_a_backward_pass() {
        let mut g = Graph::new(Reference::default()).unwrap();
        let ids = ["a", "b"].map(|name| parameter(&mut g, name));
        (g.params.write_momentum(&g.backend, ids[1], Some(&[4.0]))).unwrap();
        assert_eq!(g.params.read_momentum(&g.backend, ids[1]), Some(vec![4.0]));
        g.begin(Mode::Train);
        let Graph {
            params,
            backend,
            arena,
            ..
        } = &mut g;
        params.add_flat_grads(backend, arena, &[1.0, 2.0]);
        g.sgd(HEAVY);
        let values = ids.map(|id| g.params.read(&g.backend, id)[0]);
        assert_eq!(values, [8.0 - 1.0, 8.0 - (2.0 + 2.0)]);
    }

    #[test]
    fn a_parameter_that_grows_leaves_the_others_their_momentum() {
        let mut g = Graph::new(Reference::default()).unwrap();
        let ids = ["a", "b"].map(|name| parameter(&mut g, name));
        g.begin(Mode::Train);
        backward(&mut g, &ids);
        g.sgd(HEAVY);
        let wider = ParamLayout::Plain(Shape::new(&[1, 40]));
        g.grow_parameter(ids[0], wider, &[0.0; 40]);
        assert_eq!(g.params.read_momentum(&g.backend, ids[0]), None);
        assert_eq!(g.params.read_momentum(&g.backend, ids[1]), Some(vec![1.0]));
        // Gradients are forgotten, and the next find room.
        backward(&mut g, &ids[1..]);
        g.sgd(HEAVY);
        assert_eq!(g.params.read(&g.backend, ids[1]), [8.0 - 1.0 - 1.5]);
    }
}
