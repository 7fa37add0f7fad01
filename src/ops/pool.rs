//! Maximum and average over windows, fixed or adaptive.
//!
//! Backward: a maximum sends the gradient to the first largest value of its window, an average
//! divides it evenly over the window (`count_include_pad=True`, as PyTorch's default).

use crate::backend::Backend;
use crate::graph::{Block, Graph, Op, Order, Var};
use crate::shape::{Pool, Window};

impl<B: Backend> Graph<B> {
    /// Largest value of each window of `x` (`[N, C, H, W]`).
    ///
    /// # Panics
    /// If `x` is not a batch of images or no window fits.
    #[track_caller]
    pub fn max_pool(&mut self, x: Var, rows: Window, cols: Window) -> Var {
        self.pool(x, rows, cols, true)
    }

    /// Mean of each window of `x` (`[N, C, H, W]`).
    ///
    /// # Panics
    /// If `x` is not a batch of images or no window fits.
    #[track_caller]
    pub fn avg_pool(&mut self, x: Var, rows: Window, cols: Window) -> Var {
        self.pool(x, rows, cols, false)
    }

    #[track_caller]
    fn pool(&mut self, x: Var, rows: Window, cols: Window, max: bool) -> Var {
        let shape = self.shape(x);
        assert_eq!(
            shape.rank(),
            4,
            "pooling: expected [N, C, H, W], found {shape}"
        );
        for window in [rows, cols] {
            if let Window::Fixed {
                kernel,
                stride,
                padding,
            } = window
            {
                assert!(
                    stride > 0 && 2 * padding <= kernel,
                    "pooling: the step must be positive and the padding at most half the kernel, \
                     found {window:?}"
                );
            }
        }
        let pool = Pool {
            input: shape.images(),
            rows,
            cols,
        };
        let output = pool.output();
        assert!(
            output.pixels() > 0,
            "pooling: no window of {rows:?} x {cols:?} fits {shape}"
        );
        let x = self.spatial(x);
        let (value, mut y) = self.output(output.len());
        let images = self.node(x).value;
        let source = self.arena.range(images, 0, shape.len());
        let op = if max {
            self.backend.max_pool(y.view(), source, pool);
            Op::MaxPool { x, pool }
        } else {
            self.backend.avg_pool(y.view(), source, pool);
            Op::AvgPool { x, pool }
        };
        self.arena.restore(y);
        self.push(op, output.shape(), Order::Spatial, value, &[x], false)
    }

    pub(super) fn max_pool_backward(&mut self, x: Var, pool: Pool, y: Block, dy: Block) {
        let node = self.node(x);
        if let Some((mut dx, write)) = self.grad_of(x) {
            let source = self.arena.range(node.value, 0, pool.input.len());
            let (y, dy) = (self.arena.view(y), self.arena.view(dy));
            self.backend
                .max_pool_backward(dx.view(), source, y, dy, pool, write);
            self.arena.restore(dx);
        }
    }

    pub(super) fn avg_pool_backward(&mut self, x: Var, pool: Pool, dy: Block) {
        if let Some((mut dx, write)) = self.grad_of(x) {
            self.backend
                .avg_pool_backward(dx.view(), self.arena.view(dy), pool, write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;
    use crate::shape::Window;

    const WINDOWS: [(Window, Window); 4] = [
        (
            Window::Fixed {
                kernel: 2,
                stride: 2,
                padding: 0,
            },
            Window::Fixed {
                kernel: 2,
                stride: 2,
                padding: 0,
            },
        ),
        (
            Window::Fixed {
                kernel: 3,
                stride: 2,
                padding: 1,
            },
            Window::Fixed {
                kernel: 3,
                stride: 1,
                padding: 1,
            },
        ),
        (Window::Adaptive { out: 1 }, Window::Adaptive { out: 1 }),
        (Window::Adaptive { out: 3 }, Window::Adaptive { out: 2 }),
    ];

    #[test]
    fn max_pool_gradient() {
        for (rows, cols) in WINDOWS {
            Check::new("max_pool").input(&[2, 3, 5, 7]).run(|g, v, _| {
                let (a, b) = (g.max_pool(v[0], rows, cols), g.max_pool(v[0], rows, cols));
                let b = g.scale(b, 0.5);
                g.add(a, b)
            });
        }
    }

    #[test]
    fn avg_pool_gradient() {
        for (rows, cols) in WINDOWS {
            Check::new("avg_pool").input(&[2, 3, 5, 7]).run(|g, v, _| {
                let (a, b) = (g.avg_pool(v[0], rows, cols), g.avg_pool(v[0], rows, cols));
                let b = g.scale(b, 0.5);
                g.add(a, b)
            });
        }
    }
}
