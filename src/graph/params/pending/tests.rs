//! Each story is told twice: with a first layer whose gradient may wait, and with one whose input wants a gradient,
//! so that nothing waits. All that can be read must have the same bits.

use crate::backend::SgdStep;
use crate::backend::cpu::Cpu;
use crate::graph::{Graph, Mode, ParamId, ParamLayout, Var};
use crate::shape::Shape;

const ROWS: usize = 6;
const PIXELS: usize = 130;
const UNITS: usize = 40;
const CLASSES: usize = 3;

const PLAIN: SgdStep = SgdStep {
    lr: 0.1,
    momentum: 0.0,
    dampening: 0.0,
    weight_decay: 0.0,
    nesterov: false,
    first: false,
};

const HEAVY: SgdStep = SgdStep {
    momentum: 0.9,
    ..PLAIN
};

/// Numbers in [-1, 1) that depend on `seed`.
fn numbers(seed: usize, len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i + 31 * seed) * 7919 % 2003) as f32 / 1001.5 - 1.0)
        .collect()
}

/// Two layers, and what has been seen of them.
struct Story {
    g: Graph<Cpu>,
    weights: [ParamId; 2],
    biases: [ParamId; 2],
    ground: f32,
    /// Whether the first gradient may wait.
    waits: bool,
    seen: Vec<Vec<u32>>,
}

impl Story {
    fn new(ground: f32, waits: bool) -> Self {
        let mut g = Graph::new(Cpu::default()).unwrap();
        let mut layer = |seed, inputs, outputs| {
            let weight = ParamLayout::Linear { inputs, outputs };
            let bias = ParamLayout::Plain(Shape::new(&[outputs]));
            let name = |part: &str| format!("fc{seed}.{part}");
            let init = numbers(seed, inputs * outputs);
            (
                g.parameter(&name("weight"), weight, &init),
                g.parameter(&name("bias"), bias, &numbers(seed + 2, outputs)),
            )
        };
        let (first, second) = (layer(0, PIXELS, UNITS), layer(1, UNITS, CLASSES));
        Story {
            g,
            weights: [first.0, second.0],
            biases: [first.1, second.1],
            ground,
            waits,
            seen: Vec::new(),
        }
    }

    /// Images on a ground.
    fn images(&mut self, seed: usize) -> Var {
        let mut images = numbers(seed, ROWS * PIXELS);
        for (i, x) in images.iter_mut().enumerate() {
            if i * 5 % 7 > 1 || i % PIXELS > 100 {
                *x = self.ground;
            }
        }
        (self.g).input(Shape::new(&[ROWS, PIXELS]), &images, !self.waits)
    }

    fn features(&mut self, images: Var) -> Var {
        let y = (self.g).linear(images, self.weights[0], Some(self.biases[0]));
        self.g.relu(y)
    }

    fn loss(&mut self, features: Var) -> Var {
        let y = (self.g).linear(features, self.weights[1], Some(self.biases[1]));
        let target = numbers(9, ROWS * CLASSES);
        let target = (self.g).input(Shape::new(&[ROWS, CLASSES]), &target, false);
        self.g.mse(y, target)
    }

    /// A step up to the gradients.
    fn backward(&mut self, seed: usize) {
        self.g.begin(Mode::Train);
        self.again(seed);
        assert_eq!(self.g.params.pending.is_some(), self.waits);
    }

    /// Another pass in the same step.
    fn again(&mut self, seed: usize) {
        let images = self.images(seed);
        let features = self.features(images);
        let loss = self.loss(features);
        self.g.backward(loss);
    }

    fn note(&mut self, numbers: &[f32]) {
        (self.seen).push(numbers.iter().map(|x| x.to_bits()).collect());
    }

    /// Notes all values.
    fn look(&mut self) {
        let mut values = Vec::new();
        self.g.params.read_flat(&self.g.backend, &mut values);
        self.note(&values);
    }

    /// Notes all gradients, both ways.
    fn look_at_gradients(&mut self) {
        let (g, mut all) = (&self.g, Vec::new());
        g.params.read_flat_grads(&g.backend, &g.arena, &mut all);
        let own = g.params.read_grad(&g.backend, &g.arena, self.weights[0]);
        self.note(&all);
        self.note(&own.unwrap_or_default());
    }
}

/// Tells a story twice, on each of two grounds.
#[track_caller]
fn same(story: impl Fn(&mut Story)) {
    for ground in [0.0, -0.4242] {
        let [waiting, eager] = [true, false].map(|waits| {
            let mut told = Story::new(ground, waits);
            told.look();
            story(&mut told);
            told.look();
            told.seen
        });
        assert_eq!(waiting.len(), eager.len());
        let first = waiting.iter().zip(&eager).position(|(a, b)| a != b);
        assert_eq!(first, None, "on {ground}: what was seen first as different");
        assert!(
            eager.iter().any(|seen| seen != &eager[0]),
            "on {ground}: nothing was moved"
        );
    }
}

#[test]
fn plain_steps() {
    same(|s| {
        for seed in 0..3 {
            s.backward(seed);
            s.g.sgd(PLAIN);
            s.look();
        }
    });
}

#[test]
fn steps_of_any_kind_and_one_kind_after_the_other() {
    let decay = SgdStep {
        weight_decay: 0.3,
        ..PLAIN
    };
    let odd = [0.0, -0.1, f32::INFINITY, f32::NAN].map(|lr| SgdStep { lr, ..PLAIN });
    same(|s| {
        // The first heavy step after a plain one starts a momentum of its own.
        let steps = [HEAVY, HEAVY, PLAIN, HEAVY, decay, PLAIN];
        for (seed, step) in steps.into_iter().chain(odd).enumerate() {
            s.backward(seed);
            s.g.sgd(step);
            s.look();
        }
    });
}

#[test]
fn steps_by_noise() {
    same(|s| {
        s.g.begin(Mode::Train);
        let noise = numbers(5, ROWS * PIXELS);
        let x = (s.g).input(Shape::new(&[ROWS, PIXELS]), &noise, !s.waits);
        let features = s.features(x);
        let loss = s.loss(features);
        s.g.backward(loss);
        s.g.sgd(PLAIN);
    });
}

#[test]
fn gradients_are_read_as_often_as_one_likes() {
    same(|s| {
        s.backward(0);
        s.look_at_gradients();
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.look();
        s.look_at_gradients();
        s.g.sgd(HEAVY);
        s.look();
        s.look_at_gradients();
    });
}

#[test]
fn gradients_are_overwritten_and_added_to() {
    same(|s| {
        let n = s.g.params.flat_len();
        s.backward(0);
        let mut all = Vec::new();
        (s.g.params).read_flat_grads(&s.g.backend, &s.g.arena, &mut all);
        all.iter_mut().for_each(|x| *x *= 0.5);
        s.g.params.write_flat_grads(&s.g.backend, &all);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.look();
        s.backward(1);
        let penalty = numbers(3, n);
        (s.g.params).add_flat_grads(&s.g.backend, &mut s.g.arena, &penalty);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
    });
}

#[test]
fn a_layer_is_used_more_than_once() {
    same(|s| {
        // In one pass, for other images.
        s.g.begin(Mode::Train);
        let (one, other) = (s.images(0), s.images(1));
        let (one, other) = (s.features(one), s.features(other));
        let sum = s.g.add(one, other);
        let loss = s.loss(sum);
        s.g.backward(loss);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.look();
        // As a value beside the layer, recorded before it and after it.
        for first in [true, false] {
            s.g.begin(Mode::Train);
            let early = first.then(|| s.g.weight(s.weights[0]));
            let images = s.images(2);
            let features = s.features(images);
            let value = early.unwrap_or_else(|| s.g.weight(s.weights[0]));
            let zeros = vec![0.25; PIXELS * UNITS];
            let zeros = (s.g).input(Shape::new(&[PIXELS, UNITS]), &zeros, false);
            let (loss, penalty) = (s.loss(features), s.g.mse(value, zeros));
            let loss = s.g.add(loss, penalty);
            s.g.backward(loss);
            s.look_at_gradients();
            s.g.sgd(PLAIN);
            s.look();
        }
    });
}

#[test]
fn passes_of_a_step_add_up() {
    same(|s| {
        s.g.begin(Mode::Train);
        let images = s.images(0);
        let features = s.features(images);
        let loss = s.loss(features);
        s.g.backward(loss);
        s.g.backward(loss);
        s.look_at_gradients();
        s.again(1);
        s.g.backward(loss);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        // The gradients are still there for another step, and another pass.
        s.g.sgd(PLAIN);
        s.look();
        s.backward(2);
        s.g.sgd(PLAIN);
        s.again(3);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
    });
}

#[test]
fn one_gradient_waits_at_a_time() {
    same(|s| {
        s.g.begin(Mode::Train);
        let features = numbers(1, ROWS * UNITS);
        let features = (s.g).input(Shape::new(&[ROWS, UNITS]), &features, !s.waits);
        let images = s.images(0);
        let two = s.features(images);
        let target = (s.g).input(Shape::new(&[ROWS, UNITS]), &[0.5; ROWS * UNITS], false);
        let (one, two) = (s.loss(features), s.g.mse(two, target));
        let loss = s.g.add(one, two);
        s.g.backward(loss);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
    });
}

#[test]
fn what_the_product_reads_stays_as_it_is() {
    same(|s| {
        s.backward(0);
        // Takes whatever memory was given back, without and with another pass.
        s.g.mode = Mode::Eval;
        for seed in 1..4 {
            let images = s.images(seed);
            let features = s.features(images);
            let loss = s.loss(features);
            let value = s.g.read(loss);
            s.note(&value);
        }
        s.g.mode = Mode::Train;
        s.look_at_gradients();
        let x = (s.g).input(Shape::new(&[1]), &[2.0], true);
        let loss = s.g.scale(x, 3.0);
        s.g.backward(loss);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
    });
}

#[test]
fn frozen_weights_stay() {
    same(|s| {
        let first = s.weights[0];
        s.backward(0);
        s.g.params.set_trainable(first, false);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.look();
        s.g.sgd(HEAVY);
        s.look();
        let n = s.g.params.flat_len();
        (s.g.params).add_flat_grads(&s.g.backend, &mut s.g.arena, &numbers(3, n));
        s.look_at_gradients();
        s.g.begin(Mode::Train);
        s.again(1);
        assert!(s.g.params.pending.is_none());
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.g.params.set_trainable(first, true);
        s.backward(2);
        s.g.sgd(PLAIN);
    });
}

#[test]
fn gradients_are_forgotten() {
    same(|s| {
        // By the next step, which does not use the layer.
        s.backward(0);
        s.g.begin(Mode::Train);
        let features = (s.g).input(Shape::new(&[ROWS, UNITS]), &numbers(1, ROWS * UNITS), false);
        let loss = s.loss(features);
        s.g.backward(loss);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.look();
        // In the middle of one.
        s.backward(1);
        s.g.params.zero_grad();
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.look();
        s.again(2);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.look();
        // By a layer that grows.
        s.backward(3);
        let layout = ParamLayout::Linear {
            inputs: UNITS,
            outputs: CLASSES + 1,
        };
        (s.g).grow_parameter(s.weights[1], layout, &[0.5; UNITS * (CLASSES + 1)]);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
        s.look();
        // By one that takes the place of another.
        let layout = s.g.params.layout(s.weights[0]);
        s.g.begin(Mode::Train);
        let images = s.images(4);
        let features = s.features(images);
        let target = (s.g).input(Shape::new(&[ROWS, UNITS]), &[0.1; ROWS * UNITS], false);
        let loss = s.g.mse(features, target);
        s.g.backward(loss);
        let values = numbers(8, PIXELS * UNITS);
        (s.g).replace_parameter(s.weights[0], "other.weight", layout, &values);
        s.look_at_gradients();
        s.g.sgd(PLAIN);
    });
}

#[test]
fn other_values_come_in_between() {
    same(|s| {
        s.backward(0);
        let (values, n) = (numbers(4, PIXELS * UNITS), s.g.params.flat_len());
        (s.g.params)
            .write_values(&s.g.backend, s.weights[0], &values)
            .unwrap();
        (s.g.params).other_weights(&s.g.backend, &numbers(6, n), &[]);
        s.look();
        s.look_at_gradients();
        s.g.params.own_weights();
        s.look();
        s.g.sgd(PLAIN);
    });
}
