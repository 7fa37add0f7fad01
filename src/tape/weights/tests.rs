use super::*;
use crate::backend::SgdStep;
use crate::tape::{Device, Mode, Norm, ParamId, Var};

/// A layer, a normalisation and a head of so many units. Everything starts as small formula numbers.
struct Model {
    fc: [ParamId; 2],
    norm: Norm,
    head: [ParamId; 2],
}

impl Model {
    fn new(tape: &mut Tape, classes: usize) -> Self {
        let mut linear = |name: &str, inputs: usize, outputs: usize| {
            let numbers = |n: usize| -> Vec<f32> {
                (0..n).map(|i| (i * 7 % 11) as f32 / 8.0 - 0.6).collect()
            };
            let weight = ParamLayout::Linear { inputs, outputs };
            let bias = ParamLayout::Plain(Shape::new(&[outputs]));
            [
                tape.parameter(
                    &format!("{name}.weight"),
                    weight,
                    &numbers(inputs * outputs),
                ),
                tape.parameter(&format!("{name}.bias"), bias, &numbers(outputs)),
            ]
        };
        let fc = linear("fc", 3, 5);
        let head = linear("head", 5, classes);
        let norm = tape.norm("bn", 5, 1e-5, 0.1);
        Model { fc, norm, head }
    }

    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        let x = tape.linear(x, self.fc[0], Some(self.fc[1]));
        let x = tape.batch_norm(x, self.norm, false);
        let x = tape.dropout(x, 0.5);
        tape.linear(x, self.head[0], Some(self.head[1]))
    }
}

fn step(tape: &mut Tape, lr: f32) {
    tape.sgd(SgdStep {
        lr,
        momentum: 0.0,
        dampening: 0.0,
        weight_decay: 0.0,
        nesterov: false,
        first: false,
    });
}

const X: [f32; 12] = [
    0.3, -1.0, 0.7, 2.0, 0.1, -0.4, 1.5, 0.9, -0.2, 0.0, 0.8, -1.1,
];

/// A step of training up to the gradients.
fn backward(tape: &mut Tape, model: &Model) {
    tape.begin(Mode::Train);
    let x = tape.input(&[4, 3], &X);
    let y = model.forward(tape, x);
    let loss = tape.cross_entropy(y, &[0, 1, 1, 0]);
    tape.backward(loss);
}

fn logits(tape: &mut Tape, model: &Model) -> Vec<f32> {
    let x = tape.input(&[4, 3], &X);
    let y = model.forward(tape, x);
    tape.value(y).iter().copied().collect()
}

fn both(test: impl Fn(Tape, Model)) {
    for device in [Device::Cpu, Device::Reference] {
        let mut tape = Tape::new(device).unwrap();
        let model = Model::new(&mut tape, 2);
        test(tape, model);
    }
}

#[test]
fn flat_vectors_hold_every_parameter_once_and_in_place() {
    both(|mut tape, model| {
        backward(&mut tape, &model);
        let (mut values, mut gradients) = (Vec::new(), Vec::new());
        tape.parameters_flat(&mut values);
        tape.gradients(&mut gradients);
        let ranges = tape.parameter_ranges();
        assert_eq!(ranges.len(), 6);
        assert_eq!(ranges[3], ("head.bias".into(), 30..32));
        let sorted = |values: &[f32]| {
            let mut values = values.to_vec();
            values.sort_by(f32::total_cmp);
            values
        };
        for (id, (name, range)) in tape.parameters().into_iter().zip(ranges) {
            assert_eq!(tape.parameter_name(id), name);
            let own: Vec<f32> = tape.parameter_value(id).iter().copied().collect();
            assert_eq!(sorted(&values[range.clone()]), sorted(&own), "{name}");
            let own: Vec<f32> = (tape.parameter_grad(id).unwrap().iter().copied()).collect();
            assert_eq!(sorted(&gradients[range]), sorted(&own), "{name}");
        }
    });
}

#[test]
fn what_is_written_is_read_back_and_stepped_with() {
    both(|mut tape, model| {
        let ids = tape.parameters();
        tape.set_trainable(ids[0], false);
        backward(&mut tape, &model);
        let n = tape.parameter_count();
        let mut before = Vec::new();
        tape.parameters_flat(&mut before);
        let new: Vec<f32> = (0..n).map(|i| i as f32 / 64.0).collect();
        tape.set_gradients(&new);
        tape.add_gradients(&vec![0.25; n]);
        let mut got = Vec::new();
        tape.gradients(&mut got);
        let want: Vec<f32> = new.iter().map(|g| g + 0.25).collect();
        assert_eq!(got[15..], want[15..]);
        assert_eq!(got[..15], [0.0; 15], "a frozen parameter has no gradient");
        step(&mut tape, 1.0);
        let mut after = Vec::new();
        tape.parameters_flat(&mut after);
        assert_eq!(after[..15], before[..15]);
        for i in 15..n {
            let error = (before[i] - after[i] - want[i]).abs();
            assert!(error <= 1e-5, "number {i} is {error} off");
        }
        tape.set_parameters_flat(&new);
        tape.parameters_flat(&mut got);
        assert_eq!(got, new);
    });
}

#[test]
fn a_parameter_that_the_step_did_not_use_gets_the_gradient_that_is_added() {
    both(|mut tape, _| {
        tape.begin(Mode::Train);
        let n = tape.parameter_count();
        tape.set_gradients(&vec![9.0; n]);
        let mut got = Vec::new();
        tape.gradients(&mut got);
        assert_eq!(got, vec![0.0; n], "nothing has a gradient to overwrite");
        tape.add_gradients(&vec![2.0; n]);
        tape.add_gradients(&vec![0.5; n]);
        tape.gradients(&mut got);
        assert_eq!(got, vec![2.5; n]);
        tape.zero_grad();
        tape.gradients(&mut got);
        assert_eq!(got, vec![0.0; n]);
    });
}

#[test]
fn other_weights_are_used_and_the_own_ones_come_back_exactly() {
    both(|mut tape, model| {
        let teacher = tape.weights();
        tape.begin(Mode::Eval);
        let old = logits(&mut tape, &model);
        for _ in 0..3 {
            backward(&mut tape, &model);
            step(&mut tape, 0.1);
        }
        let mut student = Vec::new();
        tape.parameters_flat(&mut student);
        let plain = {
            backward(&mut tape, &model);
            let mut gradients = Vec::new();
            tape.gradients(&mut gradients);
            gradients
        };
        // The same step once more, with the teacher's pass in its middle: neither the dropout of the
        // step nor its gradients notice.
        on!(&mut tape, g => g.train_steps -= 1);
        tape.begin(Mode::Train);
        let x = tape.input(&[4, 3], &X);
        let y = model.forward(&mut tape, x);
        let seen = tape.with_weights(&teacher, |tape| tape.no_grad(|tape| logits(tape, &model)));
        assert_eq!(seen, old);
        assert_eq!(tape.mode(), Mode::Train);
        let loss = tape.cross_entropy(y, &[0, 1, 1, 0]);
        tape.backward(loss);
        let mut gradients = Vec::new();
        tape.gradients(&mut gradients);
        assert_eq!(gradients, plain);
        let mut now = Vec::new();
        tape.parameters_flat(&mut now);
        assert_eq!(now, student);

        tape.set_weights(&teacher);
        tape.begin(Mode::Eval);
        assert_eq!(logits(&mut tape, &model), old);
        assert_eq!(tape.weights(), teacher);
    });
}

#[test]
fn weights_come_back_when_memory_runs_out() {
    let mut tape = Tape::new(Device::Cpu).unwrap();
    Model::new(&mut tape, 2);
    let teacher = tape.weights();
    tape.set_parameters_flat(&[1.0; 42]);
    let out = Tape::guard(|| {
        tape.with_weights(&teacher, |_| -> Result<()> {
            std::panic::resume_unwind(Box::new(Error::Device("no memory".into())))
        })
    });
    assert!(matches!(out, Err(Error::Device(_))));
    let mut now = Vec::new();
    tape.parameters_flat(&mut now);
    assert_eq!(now, [1.0; 42]);
}

#[test]
fn weights_and_importances_follow_a_head_that_grows() {
    let mut small = Tape::new(Device::Cpu).unwrap();
    Model::new(&mut small, 2);
    let (mut flat, mut weights) = (Flat::parameters(&small), small.weights());
    let mut large = Tape::new(Device::Cpu).unwrap();
    let model = Model::new(&mut large, 4);
    large.set_parameters_flat(&vec![7.0; large.parameter_count()]);
    flat.fit(&large);
    large.set_weights(&weights);
    let ids = (small.parameters(), large.parameters());
    for (a, b) in ids.0.into_iter().zip(ids.1) {
        let (a, b) = (small.parameter_value(a), large.parameter_value(b));
        for (i, &x) in b.indexed_iter() {
            assert_eq!(x, a.get(i.clone()).copied().unwrap_or(7.0), "{i:?}");
        }
    }
    let mut values = Vec::new();
    large.parameters_flat(&mut values);
    let zeros: Vec<f32> = (values.iter())
        .map(|&x| if x == 7.0 { 0.0 } else { x })
        .collect();
    assert_eq!(flat.values, zeros);
    weights.fit(&large);
    assert_eq!(weights.parameters, flat);
    large.begin(Mode::Eval);
    large.with_weights(&weights, |tape| logits(tape, &model));
}

#[test]
fn snapshots_hold_weights_exactly_and_lies_in_them_are_errors() {
    let mut tape = Tape::new(Device::Cpu).unwrap();
    let model = Model::new(&mut tape, 2);
    backward(&mut tape, &model);
    let weights = tape.weights();
    let mut snapshot = Snapshot::default();
    weights.save(&mut snapshot, "teacher");
    assert_eq!(Weights::load(&snapshot, "teacher").unwrap(), weights);
    assert!(Weights::load(&snapshot, "other").is_err());

    type Layouts<'a> = Vec<(&'a str, &'a str, Vec<usize>)>;
    let lies: [Layouts; 6] = [
        vec![("w", "plain", vec![usize::MAX, usize::MAX])],
        vec![("w", "plain", vec![0, usize::MAX])],
        vec![("w", "plain", vec![1; 5])],
        vec![("w", "linear", vec![42])],
        vec![("w", "curve", vec![42])],
        vec![("w", "plain", vec![41])],
    ];
    for lie in lies {
        let flat = snapshot.child("teacher").child("parameters");
        flat.put("layouts", &lie);
        let error = Weights::load(&snapshot, "teacher").unwrap_err();
        assert!(matches!(error, Error::Checkpoint(_)), "{lie:?}: {error}");
    }
}
