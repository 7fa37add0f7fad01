//! Matrix product `Y = A·B` and the linear layer `Y = X·W (+ b)`.
//!
//! Backward: `dA = dY·Bᵀ`, `dB = Aᵀ·dY`, `db = Σ rows of dY`. `W` is stored `[in][out]`.

use crate::backend::{Backend, Elem, Gemm, Write};
use crate::graph::{Block, Graph, Op, Order, ParamId, ParamLayout, Pending, Var, multiply};
use crate::shape::Shape;

impl<B: Backend> Graph<B> {
    /// The matrix product of `a` (`[m, k]`) and `b` (`[k, n]`).
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn matmul(&mut self, a: Var, b: Var) -> Var {
        let (na, nb) = (self.node(a), self.node(b));
        assert!(
            na.shape.rank() == 2 && nb.shape.rank() == 2 && na.shape.dim(1) == nb.shape.dim(0),
            "matmul: {} x {} do not fit",
            na.shape,
            nb.shape
        );
        let (m, k, n) = (na.shape.dim(0), na.shape.dim(1), nb.shape.dim(1));
        let (value, mut y) = self.output(m * n);
        let (left, right) = (
            self.arena.range(na.value, 0, m * k),
            self.arena.range(nb.value, 0, k * n),
        );
        self.backend
            .gemm(y.view(), left, right, product(m, n, k), Write::Set);
        self.arena.restore(y);
        self.push(
            Op::MatMul(a, b),
            Shape::new(&[m, n]),
            Order::Rows,
            value,
            &[a, b],
            false,
        )
    }

    pub(super) fn matmul_backward(&mut self, a: Var, b: Var, dy: Block) {
        let (na, nb) = (self.node(a), self.node(b));
        let (m, k, n) = (na.shape.dim(0), na.shape.dim(1), nb.shape.dim(1));
        if let Some((mut da, write)) = self.grad_of(a) {
            let dims = Gemm {
                b_transposed: true,
                ..product(m, k, n)
            };
            let right = self.arena.range(nb.value, 0, k * n);
            self.backend
                .gemm(da.view(), self.arena.view(dy), right, dims, write);
            self.arena.restore(da);
        }
        if let Some((mut db, write)) = self.grad_of(b) {
            let dims = Gemm {
                a_transposed: true,
                ..product(k, n, m)
            };
            let left = self.arena.range(na.value, 0, m * k);
            self.backend
                .gemm(db.view(), left, self.arena.view(dy), dims, write);
            self.arena.restore(db);
        }
    }

    /// The linear layer `x·W + b`: `x` is `[N, in]`, the weight was created with
    /// [`ParamLayout::Linear`], the bias has `out` numbers.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn linear(&mut self, x: Var, weight: ParamId, bias: Option<ParamId>) -> Var {
        let node = self.peek(x);
        let name = self.params.name(weight);
        let ParamLayout::Linear { inputs, outputs } = self.params.layout(weight) else {
            panic!("linear: parameter {name} is not the weight of a linear layer");
        };
        assert!(
            node.shape.rank() == 2 && node.shape.dim(1) == inputs,
            "linear {name}: expected an input of shape [N, {inputs}], found {}; images need \
             flatten() first",
            node.shape
        );
        let rows = node.shape.dim(0);
        let (value, mut y) = self.output(rows * outputs);
        let dims = product(rows, outputs, inputs);
        let matrix = self.params.value(weight);
        let done = (self.arena.bytes(node.value)).is_some_and(|bytes| {
            (self.backend).gemm_bytes(y.view(), bytes, matrix, dims, Write::Set)
        });
        if !done {
            let source = self.node(x).value;
            let source = self.arena.range(source, 0, rows * inputs);
            let matrix = self.params.value(weight);
            self.backend
                .gemm(y.view(), source, matrix, dims, Write::Set);
        }
        if let Some(bias) = bias {
            self.backend
                .add_bias(y.view(), self.params.value(bias), outputs);
        }
        self.arena.restore(y);
        let own = self.trains(&[Some(weight), bias]);
        let shape = Shape::new(&[rows, outputs]);
        self.push(
            Op::Linear { x, weight, bias },
            shape,
            Order::Rows,
            value,
            &[x],
            own,
        )
    }

    pub(super) fn linear_backward(
        &mut self,
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        dy: Block,
    ) {
        let node = self.peek(x);
        let (rows, inputs) = (node.shape.dim(0), node.shape.dim(1));
        let outputs = self.params.value(weight).len / inputs.max(1);
        if let Some(write) = self.write_of(weight) {
            let dims = Gemm {
                a_transposed: true,
                ..product(inputs, outputs, rows)
            };
            let pending = Pending {
                weight,
                x: node.value,
                dy,
                dims,
            };
            // There is room for one: the first layer's, which is most of a small network.
            let may_wait = B::DESCENDS && !node.needs_grad && write == Write::Set;
            if !(may_wait && self.params.defer(pending)) {
                let (dw, gradient) = (self.params.grad(weight), self.arena.view(dy));
                multiply(
                    &self.backend,
                    &self.arena,
                    dw,
                    node.value,
                    gradient,
                    dims,
                    write,
                );
            }
        }
        if let Some((bias, write)) = bias.and_then(|b| Some((b, self.write_of(b)?))) {
            let gradient = self.arena.view(dy);
            self.backend
                .sum_rows(self.params.grad(bias), gradient, outputs, write);
        }
        if let Some((mut dx, write)) = self.grad_of(x) {
            let dims = Gemm {
                b_transposed: true,
                ..product(rows, inputs, outputs)
            };
            let gradient = self.arena.view(dy);
            self.backend
                .gemm(dx.view(), gradient, self.params.value(weight), dims, write);
            self.arena.restore(dx);
        }
    }

    /// A parameter as a value, for operations of the user's own; a linear layer's weight appears
    /// as `[in, out]`, a convolution's as `[kh, kw, in, out]`.
    pub fn weight(&mut self, id: ParamId) -> Var {
        let shape = match self.params.layout(id) {
            ParamLayout::Plain(shape) => shape,
            ParamLayout::Linear { inputs, outputs } => Shape::new(&[inputs, outputs]),
            ParamLayout::Conv {
                outputs,
                inputs,
                kernel: [kh, kw],
            } => Shape::new(&[kh, kw, inputs, outputs]),
        };
        let (value, mut y) = self.output(shape.len());
        let one = B::Elem::from_f64(1.0);
        self.backend
            .scale_add(y.view(), self.params.value(id), one, Write::Set);
        self.arena.restore(y);
        let own = self.trains(&[Some(id)]);
        self.push(Op::Weight(id), shape, Order::Rows, value, &[], own)
    }

    pub(super) fn weight_backward(&mut self, id: ParamId, dy: Block) {
        if let Some(write) = self.write_of(id) {
            let one = B::Elem::from_f64(1.0);
            self.backend
                .scale_add(self.params.grad(id), self.arena.view(dy), one, write);
        }
    }
}

fn product(m: usize, n: usize, k: usize) -> Gemm {
    Gemm {
        m,
        n,
        k,
        a_transposed: false,
        b_transposed: false,
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::ParamLayout;
    use crate::ops::gradcheck::Check;

    #[test]
    fn matmul_gradient() {
        Check::new("matmul")
            .input(&[3, 4])
            .input(&[4, 5])
            .run(|g, v, _| g.matmul(v[0], v[1]));
        Check::new("matmul, one factor twice")
            .input(&[3, 3])
            .run(|g, v, _| g.matmul(v[0], v[0]));
    }

    #[test]
    fn linear_gradient() {
        let weight = ParamLayout::Linear {
            inputs: 4,
            outputs: 3,
        };
        let bias = ParamLayout::Plain(crate::shape::Shape::new(&[3]));
        Check::new("linear")
            .input(&[5, 4])
            .param(weight)
            .param(bias)
            .run(|g, v, p| g.linear(v[0], p[0], Some(p[1])));
        let square = ParamLayout::Linear {
            inputs: 4,
            outputs: 4,
        };
        Check::new("a layer used three times")
            .input(&[5, 4])
            .param(square)
            .run(|g, v, p| {
                let once = g.linear(v[0], p[0], None);
                let twice = g.linear(once, p[0], None);
                let again = g.linear(v[0], p[0], None);
                g.add(twice, again)
            });
    }

    #[test]
    fn weight_gradient() {
        let plain = ParamLayout::Plain(crate::shape::Shape::new(&[4, 4]));
        Check::new("weight").param(plain).run(|g, _, p| {
            let (a, b) = (g.weight(p[0]), g.weight(p[0]));
            g.matmul(a, b)
        });
    }
}
