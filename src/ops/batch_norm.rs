//! Batch normalisation over the channels of `[N, C]` or `[N, C, H, W]`:
//! `y = (x - mean)/sqrt(var + eps)·gamma + beta`.
//!
//! In training mode mean and biased variance are those of the batch, or of each group of samples
//! when the step is divided into groups ([`Graph::set_groups`]): the three forward passes of DER++
//! run as one batch with the numbers of three. With `x̂ = (x - mean)·inv_std` and sums over the `m`
//! values of a channel in a group: `dbeta = Σ dy`, `dgamma = Σ dy·x̂`,
//! `dx = gamma·inv_std·(dy - dbeta/m - x̂·dgamma/m)`. In evaluation mode mean and variance are
//! constants: `dx = gamma·inv_std·dy`.
//!
//! With a residual `r` and a ReLU, as at the end of a block of a ResNet, all of `max(y + r, 0)` is one
//! operation: the activations go through memory once instead of three times, forward and backward.
//! Where the output is not above 0, `dy` counts as 0; what is left of it is `dr`.

use crate::backend::{Backend, BatchNorm, BatchNormBackward, Convolved, Upstream};
use crate::graph::{Block, Graph, Mode, Norm, Op, ParamId, Var};
use crate::shape::Conv;

/// What the forward pass leaves for the backward pass.
pub(super) struct Saved {
    /// Its node.
    pub of: Var,
    /// Mean of each group.
    pub mean: Block,
    /// `1 / sqrt(var + eps)` of each group.
    pub inv_std: Block,
    /// The output, if it came out of a ReLU.
    pub y: Option<Block>,
}

/// The convolution of `x` that puts out what is normalised, without a bias.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub x: Var,
    pub weight: ParamId,
    pub conv: Conv,
}

impl<B: Backend> Graph<B> {
    /// Batch normalisation. `frozen` keeps to the running statistics in training mode as well.
    ///
    /// # Panics
    /// If `x` has not the channels of `norm`.
    #[track_caller]
    pub fn batch_norm(&mut self, x: Var, norm: Norm, frozen: bool) -> Var {
        self.normalised(x, norm, frozen, None, false)
    }

    /// The ReLU of a batch normalisation, to which `residual` was added before if there is one: the
    /// numbers of [`batch_norm`](Self::batch_norm), [`add`](Self::add) and [`relu`](Self::relu) in
    /// turn, sooner.
    ///
    /// # Panics
    /// If `x` has not the channels of `norm`, or the residual not the shape of `x`.
    #[track_caller]
    pub fn batch_norm_relu(
        &mut self,
        x: Var,
        norm: Norm,
        frozen: bool,
        residual: Option<Var>,
    ) -> Var {
        self.normalised(x, norm, frozen, residual, true)
    }

    #[track_caller]
    pub(super) fn normalised(
        &mut self,
        x: Var,
        norm: Norm,
        frozen: bool,
        residual: Option<Var>,
        relu: bool,
    ) -> Var {
        let x = self.spatial(x);
        let residual = self.check_norm(x, norm, residual);
        // Each of the two parents has a gradient of its own to be written.
        let residual = match residual {
            Some(residual) if residual == x => Some(self.scale(x, 1.0)),
            other => other,
        };
        let train = self.mode == Mode::Train && !frozen;
        self.push_normalised(x, None, norm, train, residual, relu)
    }

    /// Checks that `x` and the residual fit; returns the residual in spatial order.
    #[track_caller]
    pub(super) fn check_norm(&mut self, x: Var, norm: Norm, residual: Option<Var>) -> Option<Var> {
        let x = self.shape(x);
        let c = self.params.value(norm.gamma).len;
        assert!(
            matches!(x.rank(), 2 | 4) && x.dim(1) == c,
            "batch_norm {}: expected an input of shape [N, {c}] or [N, {c}, H, W], found {x}",
            self.params.name(norm.gamma),
        );
        residual.map(|residual| {
            let shape = self.shape(residual);
            assert_eq!(
                shape, x,
                "batch_norm_relu: a residual of shape {shape} for an input of shape {x}"
            );
            self.spatial(residual)
        })
    }

    /// Normalises `x` and records it, in training mode (`train`) or in evaluation mode. Of `x` there may be nothing yet
    /// but its node: it is then the output of the convolution `first`, in training mode.
    pub(super) fn push_normalised(
        &mut self,
        x: Var,
        first: Option<First>,
        norm: Norm,
        train: bool,
        residual: Option<Var>,
        relu: bool,
    ) -> Var {
        let node = self.node(x);
        let images = node.shape.images();
        let c = images.c;
        let whole = [images.n];
        let grouped = divides(&self.groups, images.n);
        let count = if train && grouped {
            self.groups.len()
        } else {
            1
        };
        let (value, mut y) = self.output(images.len());
        let (mean, mut mean_out) = self.output(count * c);
        let (inv_std, mut inv_std_out) = self.output(count * c);
        if train {
            self.params.count_batch(norm.running, count);
        }
        let added = residual.map(|r| self.node(r).value);
        let source = first.map(|first| (first, self.node(first.x).value));
        let mut x_out = first.map(|_| self.arena.lend(node.value));
        let weight = first.map_or(norm.gamma, |first| first.weight);
        let ([gamma, beta, w], running) =
            (self.params).norm(norm.gamma, norm.beta, norm.running, weight);
        let args = BatchNorm {
            y: y.view(),
            mean: mean_out.view(),
            inv_std: inv_std_out.view(),
            running,
            x: (),
            gamma,
            beta,
            residual: added.map(|value| self.arena.range(value, 0, images.len())),
            relu,
        };
        let groups = if grouped {
            self.groups.as_slice()
        } else {
            &whole
        };
        if let Some(((first, source), x_out)) = source.zip(x_out.as_mut()) {
            let first = Convolved {
                y: x_out.view(),
                x: self.arena.range(source, 0, first.conv.input.len()),
                w,
                conv: first.conv,
            };
            let args = args.map_x(|()| first);
            self.backend
                .batch_norm_after(args, images, groups, norm.eps, norm.momentum);
        } else {
            let args = args.map_x(|()| self.arena.range(node.value, 0, images.len()));
            match train {
                true => self
                    .backend
                    .batch_norm(args, images, groups, norm.eps, norm.momentum),
                false => self.backend.batch_norm_eval(args, c, norm.eps),
            }
        }
        for lent in [y, mean_out, inv_std_out].into_iter().chain(x_out) {
            self.arena.restore(lent);
        }
        let own = self.trains(&[Some(norm.gamma), Some(norm.beta)]);
        let op = Op::BatchNorm {
            x,
            norm,
            mean,
            inv_std,
            train,
            residual,
            relu,
        };
        let parents = [x, residual.unwrap_or(x)];
        self.push(op, node.shape, node.order, value, &parents, own)
    }

    /// Returns whether `dy` is still the gradient of the output. Where a parent has no gradient yet, `dy` becomes
    /// it: that of the residual rather than that of `x`.
    pub(super) fn batch_norm_backward(
        &mut self,
        x: Var,
        norm: Norm,
        residual: Option<Var>,
        saved: Saved,
        train: bool,
        dy: Block,
    ) -> bool {
        let node = self.recall(x);
        let images = node.shape.images();
        let becomes_residual = residual.is_some_and(|r| self.take_over(r, dy));
        let becomes_input = !becomes_residual && self.take_over(x, dy);
        let mut dx = match becomes_input {
            true => None,
            false => self.grad_of(x),
        };
        let mut dresidual = match becomes_residual {
            true => None,
            false => residual.and_then(|r| self.grad_of(r)),
        };
        // What the convolution behind this has left to be computed.
        let before = match becomes_input || becomes_residual {
            true => self.take_deferred(saved.of),
            false => {
                self.settle(saved.of);
                None
            }
        };
        let mut along = before.and_then(|before| self.lend_along(&before));
        let output = self.peek(saved.of).value;
        let mut lent = (becomes_input || becomes_residual).then(|| self.arena.lend(dy));
        // Scale and shift share one write: they are only ever used together.
        let (first, second) = (self.write_of(norm.gamma), self.write_of(norm.beta));
        let write = first.or(second).unwrap_or(crate::backend::Write::Set);
        let weight = before.map_or(norm.gamma, |before| before.weight);
        let ([gamma, beta, w], dgamma_dbeta) = self.params.adjacent(norm.gamma, norm.beta, weight);
        let upstream = match &mut lent {
            None => Upstream::Kept(self.arena.view(dy)),
            Some(lent) if becomes_input => Upstream::BecomesInput(lent.view()),
            Some(lent) => Upstream::BecomesResidual(lent.view()),
        };
        let args = BatchNormBackward {
            dx: dx.as_mut().map(|(lent, write)| (lent.view(), *write)),
            dgamma_dbeta,
            x: self.arena.range(node.value, 0, images.len()),
            dy: upstream,
            gamma,
            beta,
            mean: self.arena.view(saved.mean),
            inv_std: self.arena.view(saved.inv_std),
            y: saved.y.map(|y| self.arena.view(y)),
            residual: residual.is_some(),
            dresidual: (dresidual.as_mut()).map(|(lent, write)| (lent.view(), *write)),
        };
        if train {
            let whole = [images.n];
            let grouped = divides(&self.groups, images.n);
            let groups = if grouped {
                self.groups.as_slice()
            } else {
                &whole
            };
            match before {
                Some(before) => {
                    let first = before.args(&self.arena, output, w, along.as_mut());
                    self.backend
                        .batch_norm_backward_after(first, args, images, groups, write);
                }
                None => self
                    .backend
                    .batch_norm_backward(args, images, groups, write),
            }
        } else {
            self.backend.batch_norm_eval_backward(args, images.c, write);
        }
        if let Some(before) = before {
            self.add_along(&before, along);
            self.give_gradient(before.dy);
        }
        let kept = lent.is_none();
        let others = [dx, dresidual].into_iter().flatten().map(|(lent, _)| lent);
        for lent in others.chain(lent) {
            self.arena.restore(lent);
        }
        self.give_inner(x);
        kept
    }
}

/// Whether the groups of the step divide a batch of `n` samples.
fn divides(groups: &[usize], n: usize) -> bool {
    !groups.is_empty() && groups.iter().sum::<usize>() == n
}

#[cfg(test)]
mod tests {
    use crate::backend::cpu::Cpu;
    use crate::backend::reference::Reference;
    use crate::graph::{Graph, Mode};
    use crate::ops::gradcheck::Check;
    use crate::shape::Shape;

    #[test]
    fn batch_norm_gradient() {
        Check::new("batch_norm 1d")
            .input(&[6, 3])
            .norm(3)
            .run(|g, v, _| {
                let norm = g.test_norm();
                g.batch_norm(v[0], norm, false)
            });
        Check::new("batch_norm 2d")
            .input(&[4, 3, 3, 2])
            .norm(3)
            .run(|g, v, _| {
                let norm = g.test_norm();
                g.batch_norm(v[0], norm, false)
            });
        Check::new("batch_norm in groups")
            .input(&[9, 2, 2, 3])
            .norm(2)
            .run(|g, v, _| {
                g.set_groups(&[4, 2, 3]);
                let norm = g.test_norm();
                g.batch_norm(v[0], norm, false)
            });
        Check::new("batch_norm frozen")
            .input(&[5, 3, 2, 2])
            .norm(3)
            .run(|g, v, _| {
                let norm = g.test_norm();
                g.batch_norm(v[0], norm, true)
            });
    }

    #[test]
    fn batch_norm_relu_gradient() {
        for frozen in [false, true] {
            Check::new("batch_norm, relu")
                .input(&[4, 3, 3, 2])
                .norm(3)
                .run(|g, v, _| {
                    let norm = g.test_norm();
                    g.batch_norm_relu(v[0], norm, frozen, None)
                });
            Check::new("batch_norm, residual, relu; the residual used twice")
                .input(&[5, 2, 2, 3])
                .input(&[5, 2, 2, 3])
                .norm(2)
                .run(|g, v, _| {
                    g.set_groups(&[2, 3]);
                    let norm = g.test_norm();
                    let y = g.batch_norm_relu(v[0], norm, frozen, Some(v[1]));
                    g.add(y, v[1])
                });
            Check::new("batch_norm, its own input as residual, relu")
                .input(&[6, 3])
                .norm(3)
                .run(|g, v, _| {
                    let norm = g.test_norm();
                    g.batch_norm_relu(v[0], norm, frozen, Some(v[0]))
                });
        }
    }

    #[test]
    fn the_fused_operation_gives_the_bits_of_its_parts() {
        let numbers = |seed: usize| -> Vec<f32> {
            let number = |i: usize| (i * seed % 101) as f32 / 50.0 - 1.0;
            (0..40 * 20 * 36).map(number).collect()
        };
        let shape = Shape::new(&[40, 20, 6, 6]);
        let run = |fused: bool| {
            let mut g = Graph::new(Cpu::default()).unwrap();
            let norm = g.norm("bn", 20, 1e-5, 0.1);
            g.begin(Mode::Train);
            let (x, r) = (
                g.input(shape, &numbers(37), true),
                g.input(shape, &numbers(53), true),
            );
            let y = if fused {
                g.batch_norm_relu(x, norm, false, Some(r))
            } else {
                let y = g.batch_norm(x, norm, false);
                let y = g.add(y, r);
                g.relu(y)
            };
            let target = g.input(shape, &numbers(71), false);
            let loss = g.mse(y, target);
            g.backward(loss);
            let grad = |p| g.params.read_grad(&g.backend, &g.arena, p).unwrap();
            let norms = [norm.gamma, norm.beta].map(grad);
            let (dx, dr) = (g.read_grad(x).unwrap(), g.read_grad(r).unwrap());
            [g.read(y), dx, dr, norms.concat()].concat()
        };
        let bits = |values: Vec<f32>| -> Vec<u32> { values.iter().map(|x| x.to_bits()).collect() };
        assert!(bits(run(true)) == bits(run(false)));
    }

    #[test]
    fn batch_norm_gradient_when_the_layer_is_used_twice() {
        Check::new("batch_norm twice")
            .input(&[5, 3])
            .norm(3)
            .run(|g, v, _| {
                let norm = g.test_norm();
                let once = g.batch_norm(v[0], norm, false);
                let bent = g.tanh(once);
                let twice = g.batch_norm(bent, norm, false);
                g.add(twice, v[0])
            });
    }

    #[test]
    fn groups_give_the_numbers_of_separate_passes() {
        let x: Vec<f64> = (0..7 * 2 * 4)
            .map(|i| ((i * 31 % 17) as f64).sin())
            .collect();
        let run = |parts: &[usize], together: bool| {
            let mut g = Graph::new(Reference::<f64>::default()).unwrap();
            let norm = g.norm("bn", 2, 1e-5, 0.1);
            let mut out = Vec::new();
            let mut start = 0;
            let passes: Vec<Vec<usize>> = if together {
                vec![parts.to_vec()]
            } else {
                parts.iter().map(|&n| vec![n]).collect()
            };
            for groups in passes {
                let n: usize = groups.iter().sum();
                g.begin(Mode::Train);
                g.set_groups(&groups);
                let v = g.input(
                    Shape::new(&[n, 2, 2, 2]),
                    &x[start * 8..(start + n) * 8],
                    false,
                );
                let y = g.batch_norm(v, norm, false);
                out.extend(g.read(y));
                start += n;
            }
            let running = g.params.read_running(&g.backend, norm.running);
            (out, running, g.params.buffer(norm.running).2)
        };
        let (grouped, separate) = (run(&[3, 4], true), run(&[3, 4], false));
        assert_eq!(grouped.2, separate.2, "batches counted");
        for (a, b) in grouped
            .0
            .iter()
            .zip(&separate.0)
            .chain(grouped.1.iter().zip(&separate.1))
        {
            assert!((a - b).abs() <= 1e-12, "{a} against {b}");
        }
        assert_ne!(grouped.0, run(&[7], true).0, "the groups make a difference");
    }
}
