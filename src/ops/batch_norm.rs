//! Batch normalisation over the channels of `[N, C]` or `[N, C, H, W]`:
//! `y = (x - mean)/sqrt(var + eps)·gamma + beta`.
//!
//! In training mode mean and biased variance are those of the batch, or of each group of samples
//! when the step is divided into groups ([`Graph::set_groups`]): the three forward passes of DER++
//! run as one batch with the numbers of three. With `x̂ = (x - mean)·inv_std` and sums over the `m`
//! values of a channel in a group: `dbeta = Σ dy`, `dgamma = Σ dy·x̂`,
//! `dx = gamma·inv_std·(dy - dbeta/m - x̂·dgamma/m)`. In evaluation mode mean and variance are
//! constants: `dx = gamma·inv_std·dy`.

use crate::backend::{Backend, BatchNorm, BatchNormBackward};
use crate::graph::{Block, Graph, Mode, Norm, Op, Var};

impl<B: Backend> Graph<B> {
    /// Batch normalisation. `frozen` keeps to the running statistics in training mode as well.
    ///
    /// # Panics
    /// If `x` has not the channels of `norm`.
    #[track_caller]
    pub fn batch_norm(&mut self, x: Var, norm: Norm, frozen: bool) -> Var {
        let x = self.spatial(x);
        let node = self.node(x);
        let c = self.params.value(norm.gamma).len;
        assert!(
            matches!(node.shape.rank(), 2 | 4) && node.shape.dim(1) == c,
            "batch_norm {}: expected an input of shape [N, {c}] or [N, {c}, H, W], found {}",
            self.params.name(norm.gamma),
            node.shape
        );
        let images = node.shape.images();
        let train = self.mode == Mode::Train && !frozen;
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
        let (gamma, beta, running) = self.params.norm(norm.gamma, norm.beta, norm.running);
        let args = BatchNorm {
            y: y.view(),
            mean: mean_out.view(),
            inv_std: inv_std_out.view(),
            running,
            x: self.arena.range(node.value, 0, images.len()),
            gamma,
            beta,
        };
        if train {
            let groups = if grouped {
                self.groups.as_slice()
            } else {
                &whole
            };
            self.backend
                .batch_norm(args, images, groups, norm.eps, norm.momentum);
        } else {
            self.backend.batch_norm_eval(args, c, norm.eps);
        }
        for lent in [y, mean_out, inv_std_out] {
            self.arena.restore(lent);
        }
        let own = self.trains(&[Some(norm.gamma), Some(norm.beta)]);
        let op = Op::BatchNorm {
            x,
            norm,
            mean,
            inv_std,
            train,
        };
        self.push(op, node.shape, node.order, value, &[x], own)
    }

    pub(super) fn batch_norm_backward(
        &mut self,
        x: Var,
        norm: Norm,
        mean: Block,
        inv_std: Block,
        train: bool,
        dy: Block,
    ) {
        let node = self.node(x);
        let images = node.shape.images();
        let mut dx = self.grad_of(x);
        // Scale and shift share one write: they are only ever used together.
        let (first, second) = (self.params.write(norm.gamma), self.params.write(norm.beta));
        let write = first.or(second).unwrap_or(crate::backend::Write::Set);
        let (gamma, dgamma_dbeta) = self.params.adjacent(norm.gamma, norm.beta);
        let args = BatchNormBackward {
            dx: dx.as_mut().map(|(lent, write)| (lent.view(), *write)),
            dgamma_dbeta,
            x: self.arena.range(node.value, 0, images.len()),
            dy: self.arena.view(dy),
            gamma,
            mean: self.arena.view(mean),
            inv_std: self.arena.view(inv_std),
        };
        if train {
            let whole = [images.n];
            let grouped = divides(&self.groups, images.n);
            let groups = if grouped {
                self.groups.as_slice()
            } else {
                &whole
            };
            self.backend
                .batch_norm_backward(args, images, groups, write);
        } else {
            self.backend.batch_norm_eval_backward(args, images.c, write);
        }
        if let Some((lent, _)) = dx {
            self.arena.restore(lent);
        }
    }
}

/// Whether the groups of the step divide a batch of `n` samples.
fn divides(groups: &[usize], n: usize) -> bool {
    !groups.is_empty() && groups.iter().sum::<usize>() == n
}

#[cfg(test)]
mod tests {
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
