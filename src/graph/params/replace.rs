//! Parameters that change their shape: heads that grow, layers that are replaced.
//!
//! The flat buffers are laid out anew, so that parameters keep their order, their alignment and, in
//! between, zeros; ids stay what they were. The optimizer's state follows what Avalanche does when a
//! layer is replaced (`avalanche/models/dynamic_optimizers.py`, `update_optimizer`): the parameter
//! that changed starts without momentum, all others keep theirs.

use super::{ALIGN, Param, ParamId, ParamLayout, Params};
use crate::backend::{Backend, Elem, View, ViewMut, Write};
use crate::shape::Shape;

impl<B: Backend> Params<B> {
    /// Gives parameter `id` another name, layout and values (in PyTorch's order) and drops its
    /// momentum. Whether it is trainable stays as it was. All gradients are forgotten.
    #[track_caller]
    pub fn replace(
        &mut self,
        backend: &B,
        id: ParamId,
        name: &str,
        layout: ParamLayout,
        values: &[B::Elem],
    ) {
        assert_eq!(
            values.len(),
            layout.shape().len(),
            "parameter {name}: new values"
        );
        self.demand_free_name(name, Some(id));
        let index = id.0 as usize;
        let mut offsets = Vec::with_capacity(self.params.len());
        let mut end = 0;
        for (i, p) in self.params.iter().enumerate() {
            let offset = place(end, p.adjacent);
            offsets.push(offset);
            end = offset + if i == index { values.len() } else { p.len };
        }
        // All memory is asked for before anything changes: if there is none, nothing has happened.
        // Gradients are forgotten: there will be room for the next.
        let keeps_momentum = self.params.iter().any(|p| p.has_momentum);
        let fresh = [true, false, keeps_momentum].map(|wanted| {
            let buf = backend.alloc(if wanted { end } else { 0 });
            buf.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)))
        });
        let [mut new_values, new_grads, mut new_momentum] = fresh;
        let pairs = [
            (&mut new_values, &self.values, false),
            (&mut new_momentum, &self.momentum, true),
        ];
        for (to, from, is_momentum) in pairs {
            for (i, (p, &offset)) in self.params.iter().zip(&offsets).enumerate() {
                if i == index || (is_momentum && !p.has_momentum) {
                    continue;
                }
                let dst = ViewMut {
                    buf: &mut *to,
                    offset,
                    len: p.len,
                };
                let src = View {
                    buf: from,
                    offset: p.offset,
                    len: p.len,
                };
                backend.scale_add(dst, src, B::Elem::from_f64(1.0), Write::Set);
            }
        }
        (self.values, self.grads, self.momentum) = (new_values, new_grads, new_momentum);
        self.len = end;
        self.roomy = false;
        for (p, &offset) in self.params.iter_mut().zip(&offsets) {
            p.offset = offset;
        }
        self.zero_grad();
        let old = &self.params[index];
        self.params[index] = Param {
            name: name.to_string(),
            layout,
            len: values.len(),
            has_momentum: false,
            ..*old
        };
        let dst = ViewMut {
            buf: &mut self.values,
            offset: offsets[index],
            len: values.len(),
        };
        backend.upload(dst, &layout.to_storage(values));
    }

    /// Gives parameter `id` a layout that is at least as large in each dimension. Numbers keep
    /// their place; places that are new take theirs from `fresh` (in PyTorch's order, of the new
    /// shape), as when a fresh layer is made and the old rows are copied over it.
    #[track_caller]
    pub fn grow(&mut self, backend: &B, id: ParamId, layout: ParamLayout, fresh: &[B::Elem]) {
        let (from, to, name) = (
            self.layout(id).shape(),
            layout.shape(),
            self.name(id).to_string(),
        );
        assert!(
            from.rank() == to.rank() && (0..4).all(|axis| from.dim(axis) <= to.dim(axis)),
            "parameter {name}: it cannot grow from {from} to {to}"
        );
        assert_eq!(fresh.len(), to.len(), "parameter {name}: fresh values");
        let mut values = fresh.to_vec();
        for (i, old) in self.read(backend, id).into_iter().enumerate() {
            values[moved(i, from, to)] = old;
        }
        self.replace(backend, id, &name, layout, &values);
    }

    /// Puts `prefix` in front of every name of a parameter or of running statistics.
    pub fn prefix(&mut self, prefix: &str) {
        let params = self.params.iter_mut().map(|p| &mut p.name);
        let buffers = self.buffers.iter_mut().map(|b| &mut b.name);
        params
            .chain(buffers)
            .for_each(|name| name.insert_str(0, prefix));
    }

    /// Gives parameter `id` another name.
    #[track_caller]
    pub fn rename(&mut self, id: ParamId, name: &str) {
        self.demand_free_name(name, Some(id));
        self.params[id.0 as usize].name = name.to_string();
    }
}

/// Where a parameter begins behind `end` numbers.
pub(super) fn place(end: usize, adjacent: bool) -> usize {
    if adjacent {
        end
    } else {
        end.next_multiple_of(ALIGN)
    }
}

/// The flat index in a tensor of shape `to` of what stands at `i` in one of shape `from`.
fn moved(i: usize, from: Shape, to: Shape) -> usize {
    let (mut rest, mut stride, mut out) = (i, 1, 0);
    for axis in (0..from.rank()).rev() {
        out += rest % from.dim(axis) * stride;
        rest /= from.dim(axis);
        stride *= to.dim(axis);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::SgdStep;
    use crate::backend::cpu::Cpu;
    use crate::graph::{Graph, Mode, Norm};

    const STEP: SgdStep = SgdStep {
        lr: 0.5,
        momentum: 0.5,
        dampening: 0.25,
        weight_decay: 0.0,
        nesterov: false,
        first: false,
    };

    fn linear(inputs: usize, outputs: usize) -> ParamLayout {
        ParamLayout::Linear { inputs, outputs }
    }

    /// A weight `[2, 3]`, a batch normalisation of 5 channels, and a plain parameter of 4.
    fn graph() -> (Graph<Cpu>, ParamId, Norm, ParamId) {
        let mut g = Graph::new(Cpu::default()).unwrap();
        let weight = g.parameter("w", linear(3, 2), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let norm = g.norm("bn", 5, 1e-5, 0.1);
        let plain = ParamLayout::Plain(Shape::new(&[4]));
        let last = g.parameter("p", plain, &[10.0, 20.0, 30.0, 40.0]);
        (g, weight, norm, last)
    }

    /// A step of SGD in which every number of these parameters has the gradient 1.
    fn step(g: &mut Graph<Cpu>, ids: &[ParamId]) {
        g.begin(Mode::Train);
        let mut total = None;
        for &id in ids {
            let (w, len) = (g.weight(id), g.params.layout(id).shape().len());
            let row = g.reshape(w, Shape::new(&[1, len]));
            let ones = g.input(Shape::new(&[len, 1]), &vec![1.0; len], false);
            let sum = g.matmul(row, ones);
            total = Some(total.map_or(sum, |t| g.add(t, sum)));
        }
        g.backward(total.unwrap());
        g.sgd(STEP);
    }

    fn read(g: &Graph<Cpu>, id: ParamId) -> Vec<f32> {
        g.params.read(&g.backend, id)
    }

    #[test]
    fn growing_keeps_numbers_in_their_places_and_takes_the_rest_from_the_fresh_layer() {
        let (mut g, weight, norm, last) = graph();
        let fresh: Vec<f32> = (100..116).map(|i| i as f32).collect();
        g.grow_parameter(weight, linear(4, 4), &fresh);
        let want = [
            [1.0, 2.0, 3.0, 103.0],
            [4.0, 5.0, 6.0, 107.0],
            [108.0, 109.0, 110.0, 111.0],
            [112.0, 113.0, 114.0, 115.0],
        ];
        assert_eq!(read(&g, weight), want.concat());
        assert_eq!(g.params.layout(weight), linear(4, 4));
        assert_eq!(read(&g, norm.gamma), [1.0; 5]);
        assert_eq!(read(&g, last), [10.0, 20.0, 30.0, 40.0]);
        // Scale and shift still lie side by side, which their shared gradient needs.
        g.params.adjacent(norm.gamma, norm.beta, norm.gamma);
    }

    #[test]
    fn what_has_grown_starts_without_momentum_and_the_others_keep_theirs() {
        let (mut g, weight, norm, last) = graph();
        let all = [weight, norm.beta, last];
        step(&mut g, &all); // v = 1, p -= 0.5
        g.grow_parameter(weight, linear(3, 3), &[0.0; 9]);
        // Without momentum v = 1 again, not damped; elsewhere v = 0.5 + 0.75.
        step(&mut g, &all);
        let moved = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -0.5, -0.5, -0.5];
        assert_eq!(read(&g, weight), moved);
        assert_eq!(read(&g, norm.beta), [-1.125; 5]);
        assert_eq!(read(&g, last), [8.875, 18.875, 28.875, 38.875]);
        step(&mut g, &all); // 1.25 and 1.375
        assert_eq!(read(&g, weight)[0], -0.625);
        assert_eq!(read(&g, last)[0], 8.1875);
    }

    #[test]
    fn what_was_frozen_stays_frozen() {
        let (mut g, weight, ..) = graph();
        g.params.set_trainable(weight, false);
        g.grow_parameter(weight, linear(3, 3), &[7.0; 9]);
        step(&mut g, &[weight]);
        assert_eq!(read(&g, weight)[6..], [7.0; 3]);
        assert!(!g.params.trainable(weight));
    }

    #[test]
    fn another_layer_takes_the_place_of_the_old_one() {
        let (mut g, weight, _, last) = graph();
        step(&mut g, &[weight, last]);
        g.replace_parameter(weight, "head.weight", linear(1, 2), &[8.0, 9.0]);
        assert_eq!(g.params.name(weight), "head.weight");
        step(&mut g, &[weight]);
        assert_eq!(read(&g, weight), [7.5, 8.5]);
        assert_eq!(read(&g, last), [9.5, 19.5, 29.5, 39.5]);
        // The old name is free.
        g.parameter("w", linear(1, 1), &[0.0]);
    }

    #[test]
    fn gradients_do_not_outlive_a_change() {
        let (mut g, weight, _, last) = graph();
        step(&mut g, &[weight, last]);
        g.grow_parameter(weight, linear(3, 3), &[0.0; 9]);
        assert!(g.params.read_grad(&g.backend, &g.arena, last).is_none());
    }

    #[test]
    #[should_panic(expected = "a Var of an earlier step")]
    fn a_value_from_before_the_change_is_refused() {
        let (mut g, weight, ..) = graph();
        g.begin(Mode::Train);
        let w = g.weight(weight);
        g.grow_parameter(weight, linear(3, 3), &[0.0; 9]);
        g.relu(w);
    }

    #[test]
    #[should_panic(expected = "w: it cannot grow from [2, 3] to [3, 2]")]
    fn shrinking_is_refused() {
        let (mut g, weight, ..) = graph();
        g.grow_parameter(weight, linear(2, 3), &[0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "parameter p exists already")]
    fn a_name_that_is_taken_is_refused() {
        let (mut g, weight, ..) = graph();
        g.replace_parameter(weight, "p", linear(3, 2), &[0.0; 6]);
    }
}
