//! Finite differences in f64: the check that every operation passes.
//!
//! A case builds a value from inputs and parameters; the check reduces it to one number with fixed
//! random weights, `L = Σ r·y`, and compares the derivative of L along a random direction, computed
//! by the backward pass, with `(L(+ε) - L(-ε)) / 2ε`.

use crate::backend::reference::Reference;
use crate::graph::{Graph, Mode, Norm, ParamId, ParamLayout, Var};
use crate::shape::Shape;

pub(crate) type Oracle = Graph<Reference<f64>>;

/// A gradient check under construction.
pub(crate) struct Check {
    name: &'static str,
    inputs: Vec<Shape>,
    params: Vec<ParamLayout>,
    norm: Option<usize>,
}

/// Deterministic numbers in (-1, 1), none near 0 and no two alike, so that no kink of ReLU or tie of
/// a maximum lies within ε.
fn numbers(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963);
            let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
            let signed = 2.0 * unit - 1.0;
            signed + 0.01 * signed.signum()
        })
        .collect()
}

impl Check {
    pub fn new(name: &'static str) -> Self {
        Check {
            name,
            inputs: Vec::new(),
            params: Vec::new(),
            norm: None,
        }
    }

    /// An input of this shape, with its gradient checked.
    pub fn input(mut self, dims: &[usize]) -> Self {
        self.inputs.push(Shape::new(dims));
        self
    }

    /// A parameter, with its gradient checked.
    pub fn param(mut self, layout: ParamLayout) -> Self {
        self.params.push(layout);
        self
    }

    /// A batch normalisation over `channels` channels ([`Graph::test_norm`]), whose scale and shift
    /// are checked as well.
    pub fn norm(mut self, channels: usize) -> Self {
        self.norm = Some(channels);
        self
    }

    pub fn run(self, build: impl Fn(&mut Oracle, &[Var], &[ParamId]) -> Var) {
        let mut graph = Graph::new(Reference::<f64>::default()).unwrap();
        if let Some(channels) = self.norm {
            graph.norm("norm", channels, 1e-3, 0.1);
        }
        for (i, &layout) in self.params.iter().enumerate() {
            graph.parameter(&format!("p{i}"), layout, &vec![0.0; layout.shape().len()]);
        }
        let ids: Vec<ParamId> = graph.params.ids().collect();
        let mut point: Vec<Vec<f64>> = Vec::new();
        for (i, shape) in self.inputs.iter().enumerate() {
            point.push(numbers(11 + i as u64, shape.len()));
        }
        for (i, &id) in ids.iter().enumerate() {
            point.push(numbers(
                101 + i as u64,
                graph.params.layout(id).shape().len(),
            ));
        }
        let running: Option<Vec<f64>> = self.norm.map(|c| {
            numbers(7, 2 * c)
                .iter()
                .enumerate()
                .map(|(i, x)| if i < c { *x } else { x.abs() + 0.5 })
                .collect()
        });
        // The loss, and the gradient with respect to every piece of `point`.
        let mut evaluate = |point: &[Vec<f64>], backward: bool| -> (f64, Vec<Vec<f64>>) {
            if let Some(running) = &running {
                let id = graph.params.buffer_ids().next().unwrap();
                graph.params.write_running(&graph.backend, id, running, 0);
            }
            for (&id, values) in ids.iter().zip(&point[self.inputs.len()..]) {
                graph
                    .params
                    .write_values(&graph.backend, id, values)
                    .unwrap();
            }
            graph.train_steps = 0; // the same dropout mask every time
            graph.begin(Mode::Train);
            let vars: Vec<Var> = (self.inputs.iter().zip(point))
                .map(|(&shape, values)| graph.input(shape, values, true))
                .collect();
            let own = &ids[if self.norm.is_some() { 2 } else { 0 }..];
            let y = build(&mut graph, &vars, own);
            let len = graph.shape(y).len();
            let row = graph.reshape(y, Shape::new(&[1, len]));
            let weights = graph.input(Shape::new(&[len, 1]), &numbers(977, len), false);
            let loss = graph.matmul(row, weights);
            let value = graph.read(loss)[0];
            let mut gradients = Vec::new();
            if backward {
                graph.backward(loss);
                for (&v, shape) in vars.iter().zip(&self.inputs) {
                    gradients.push(graph.read_grad(v).unwrap_or(vec![0.0; shape.len()]));
                }
                for &id in &ids {
                    let gradient = graph.params.read_grad(&graph.backend, &graph.arena, id);
                    gradients.push(gradient.unwrap_or_else(|| {
                        panic!("{}: no gradient of {}", self.name, graph.params.name(id))
                    }));
                }
            }
            (value, gradients)
        };
        let (_, gradients) = evaluate(&point, true);
        for (piece, gradient) in gradients.iter().enumerate() {
            for seed in 0..3 {
                let direction = numbers(5000 + seed, gradient.len());
                let along = |epsilon: f64| {
                    let mut moved = point.clone();
                    for (x, d) in moved[piece].iter_mut().zip(&direction) {
                        *x += epsilon * d;
                    }
                    moved
                };
                let epsilon = 1e-5;
                let (up, down) = (along(epsilon), along(-epsilon));
                let numeric = (evaluate(&up, false).0 - evaluate(&down, false).0) / (2.0 * epsilon);
                let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
                let scale: f64 = gradient.iter().map(|g| g * g).sum::<f64>().sqrt() + 1e-3;
                let error = (numeric - exact).abs() / scale;
                assert!(
                    error <= 1e-6,
                    "{}: piece {piece}: finite differences {numeric}, backward pass {exact}, \
                     relative error {error:e}",
                    self.name
                );
            }
        }
    }
}

impl Oracle {
    /// The normalisation that [`Check::norm`] asked for.
    pub(super) fn test_norm(&self) -> Norm {
        let mut ids = self.params.ids();
        Norm {
            gamma: ids.next().unwrap(),
            beta: ids.next().unwrap(),
            running: self.params.buffer_ids().next().unwrap(),
            eps: 1e-3,
            momentum: 0.1,
        }
    }
}
