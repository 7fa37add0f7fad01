//! Memory, elementwise primitives, matrix products, sums over rows, and the optimiser.

use super::{Case, LENGTHS, Lab, Visitor, WRITES};
use crate::backend::{Backend, Elem, Gemm, SgdStep, Write};

/// Enough numbers to be spread over threads, and no multiple of anything.
const LARGE: usize = 600_011;

pub(super) fn visit(visitor: &mut impl Visitor) {
    visitor.visit(ReluOfNan);
    for len in LENGTHS.into_iter().chain([LARGE]) {
        for op in [Op::Upload, Op::Fill, Op::Relu, Op::Tanh] {
            visitor.visit(Elementwise {
                op,
                len,
                write: Write::Set,
            });
        }
        for op in [
            Op::ScaleAdd,
            Op::ReluBackward,
            Op::TanhBackward,
            Op::MseBackward,
        ] {
            for write in WRITES {
                visitor.visit(Elementwise { op, len, write });
            }
        }
        if len > 0 {
            visitor.visit(Elementwise {
                op: Op::Mse,
                len,
                write: Write::Set,
            });
        }
        for step in sgd_steps() {
            visitor.visit(Sgd { len, step });
        }
    }
    for cols in [1, 7, 10, 16, 31, 33, 100] {
        for rows in [0, 1, 3, 10, 127, 128, 129, 1000] {
            visitor.visit(AddBias { rows, cols });
            for write in WRITES {
                visitor.visit(SumRows { rows, cols, write });
            }
        }
    }
    visitor.visit(AddBias {
        rows: 6001,
        cols: 101,
    });
    visitor.visit(SumRows {
        rows: 6001,
        cols: 101,
        write: Write::Add,
    });
    visitor.visit(SumRows {
        rows: 60_001,
        cols: 10,
        write: Write::Set,
    });
    visit_products(visitor);
}

/// Matrix products.
pub(super) fn visit_products(visitor: &mut impl Visitor) {
    for (m, n, k) in [
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
        (1, 1, 1),
        (1, 10, 100),
        (5, 17, 3),
        (14, 32, 16),
        (20, 100, 33),
        (33, 10, 100),
        (31, 33, 65),
        (97, 49, 130),
        (130, 129, 300),
    ] {
        for write in WRITES {
            for (a_transposed, b_transposed) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let dims = Gemm {
                    m,
                    n,
                    k,
                    a_transposed,
                    b_transposed,
                };
                visitor.visit(GemmCase { dims, write });
            }
        }
    }
}

/// A NaN must not be hidden by the primitives that compare.
#[derive(Debug)]
struct ReluOfNan;

impl Case for ReluOfNan {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let x = [f64::NAN, -1.0, 2.0, f64::NEG_INFINITY, f64::INFINITY];
        let x = lab.given(&x.repeat(7));
        let mut y = lab.output(35, Write::Set);
        lab.backend.relu(y.dst(), x.src());
        lab.record_nans("y", &y);
    }
}

/// A primitive that computes each number from the numbers at its place (or their mean).
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Upload,
    Fill,
    ScaleAdd,
    Relu,
    ReluBackward,
    Tanh,
    TanhBackward,
    Mse,
    MseBackward,
}

#[derive(Debug)]
pub(super) struct Elementwise {
    pub(super) op: Op,
    pub(super) len: usize,
    pub(super) write: Write,
}

impl Case for Elementwise {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let Elementwise { op, len, write } = *self;
        let backend = lab.backend;
        let mut a = lab.noise(len);
        // Exact zeros, where relu and its derivative have their corner.
        a.iter_mut().step_by(5).for_each(|a| *a = 0.0);
        let (mut a, b) = (lab.given(&a), lab.input(len));
        let alpha = B::Elem::from_f64(-0.375);
        let mut out = lab.output(if matches!(op, Op::Mse) { 1 } else { len }, write);
        match op {
            Op::Upload => {
                let host: Vec<_> = lab.noise(len).into_iter().map(B::Elem::from_f64).collect();
                backend.upload(a.dst(), &host);
                if let Some(shared) = backend.host(a.src()) {
                    assert_eq!(shared, host);
                }
                backend.scale_add(out.dst(), a.src(), B::Elem::from_f64(1.0), write);
            }
            Op::Fill => backend.fill(out.dst(), alpha),
            Op::ScaleAdd => backend.scale_add(out.dst(), a.src(), alpha, write),
            Op::Relu => backend.relu(out.dst(), a.src()),
            Op::ReluBackward => backend.relu_backward(out.dst(), a.src(), b.src(), write),
            Op::Tanh => backend.tanh(out.dst(), a.src()),
            Op::TanhBackward => backend.tanh_backward(out.dst(), a.src(), b.src(), write),
            Op::Mse => backend.mse(out.dst(), a.src(), b.src()),
            Op::MseBackward => {
                let dl = lab.given(&[len as f64 / 2.0]);
                backend.mse_backward(out.dst(), a.src(), b.src(), dl.src(), -1.0, write);
            }
        }
        lab.record("dst", &out, 1);
    }
}

#[derive(Debug)]
pub(super) struct AddBias {
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Case for AddBias {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let bias = lab.input(self.cols);
        let mut y = lab.input(self.rows * self.cols);
        lab.backend.add_bias(y.dst(), bias.src(), self.cols);
        lab.record("y", &y, 2);
    }
}

#[derive(Debug)]
pub(super) struct SumRows {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) write: Write,
}

impl Case for SumRows {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let src = lab.input(self.rows * self.cols);
        let mut dst = lab.output(self.cols, self.write);
        lab.backend
            .sum_rows(dst.dst(), src.src(), self.cols, self.write);
        lab.record("dst", &dst, self.rows);
    }
}

#[derive(Debug)]
pub(super) struct GemmCase {
    pub(super) dims: Gemm,
    pub(super) write: Write,
}

impl Case for GemmCase {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let Gemm { m, n, k, .. } = self.dims;
        let (a, b) = (lab.input(m * k), lab.input(k * n));
        let mut c = lab.output(m * n, self.write);
        lab.backend
            .gemm(c.dst(), a.src(), b.src(), self.dims, self.write);
        lab.record_product("c", &c, k);
    }
}

/// The variants of an SGD step.
fn sgd_steps() -> impl Iterator<Item = SgdStep> {
    let plain = SgdStep {
        lr: 0.1,
        momentum: 0.0,
        dampening: 0.25,
        weight_decay: 0.0,
        nesterov: false,
        first: false,
    };
    let heavy = SgdStep {
        momentum: 0.9,
        ..plain
    };
    let decay = SgdStep {
        weight_decay: 0.01,
        ..plain
    };
    let first = SgdStep {
        first: true,
        ..heavy
    };
    let nesterov = SgdStep {
        nesterov: true,
        weight_decay: 0.01,
        ..heavy
    };
    let first_nesterov = SgdStep {
        first: true,
        ..nesterov
    };
    [plain, heavy, decay, first, nesterov, first_nesterov].into_iter()
}

#[derive(Debug)]
pub(super) struct Sgd {
    pub(super) len: usize,
    pub(super) step: SgdStep,
}

impl Case for Sgd {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let (mut values, grads) = (lab.input(self.len), lab.input(self.len));
        // Before the first step the momentum may hold anything.
        let before = if self.step.first {
            Write::Set
        } else {
            Write::Add
        };
        let mut momentum = lab.output(self.len, before);
        lab.backend
            .sgd(values.dst(), grads.src(), momentum.dst(), self.step);
        lab.record("values", &values, 2);
        lab.record("momentum", &momentum, 2);
        if self.step.momentum == 0.0 {
            let (mut values, mut none) = (lab.input(self.len), lab.output(0, Write::Set));
            lab.backend
                .sgd(values.dst(), grads.src(), none.dst(), self.step);
            lab.record("values without momentum", &values, 2);
        }
    }
}
