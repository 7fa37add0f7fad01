//! Heads that grow, heads for each task and ResNet-32 against Avalanche's own classes: what a sequence
//! of experiences makes of their parameters and masks, what they compute, and how SGD goes on after
//! growth. What the file holds is documented in `tests/golden/README.md`.

use crate::golden_tensors::{Golden, bytes, check, flat, fnv1a64};
use serde_json::Value;
use std::collections::BTreeMap;
use unforget::ndarray::ArrayD;
use unforget::nn::{
    Adaptation, Backbone, Head, Module, ResNet18, ResNet32, SimpleCnn, SimpleMlp, as_multitask,
    with_incremental_head,
};
use unforget::optim::Sgd;
use unforget::tape::{Device, Mode, Tape};

const DEVICES: [Device; 2] = [Device::Cpu, Device::Reference];

const MODELS: [&str; 9] = [
    "incremental",
    "incremental-unmasked",
    "mt-simple-mlp",
    "mt-simple-mlp-unmasked",
    "mt-simple-cnn",
    "mt-slim-resnet18",
    "as-multitask-mlp",
    "as-multitask-cnn",
    "resnet32",
];

/// A model whose head does not mask.
fn unmasked<M: Backbone>(mut model: M) -> M {
    *model.head_mut() = match model.head().clone() {
        Head::Incremental(head) => Head::Incremental(head.masking(false)),
        Head::MultiHead(head) => Head::MultiHead(head.masking(false)),
        head @ Head::Linear(_) => head,
    };
    model
}

fn build(tape: &mut Tape, name: &str) -> Box<dyn Module> {
    let mlp = |tape: &mut Tape, classes| SimpleMlp::new(tape, classes, 48, 32, 1, 0.0);
    match name {
        "incremental" => {
            let model = mlp(tape, 5);
            Box::new(with_incremental_head(tape, model, 2))
        }
        "incremental-unmasked" => {
            let model = mlp(tape, 5);
            Box::new(unmasked(with_incremental_head(tape, model, 3)))
        }
        "mt-simple-mlp" => Box::new(SimpleMlp::multi_task(tape, 48, 32, 0.0)),
        "mt-simple-mlp-unmasked" => Box::new(unmasked(SimpleMlp::multi_task(tape, 48, 32, 0.0))),
        "mt-simple-cnn" => Box::new(SimpleCnn::multi_task(tape).drop_rate(0.0)),
        "mt-slim-resnet18" => Box::new(ResNet18::multi_task(tape, 2, 4)),
        "as-multitask-mlp" => {
            let model = mlp(tape, 4);
            Box::new(as_multitask(tape, model))
        }
        "as-multitask-cnn" => {
            let model = SimpleCnn::new(tape, 3).drop_rate(0.0);
            Box::new(as_multitask(tape, model))
        }
        "resnet32" => Box::new(ResNet32::new(tape, 10)),
        _ => panic!("no model {name}"),
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().expect("a whole number") as usize
}

fn numbers(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list");
    list.iter().map(|v| number(v) as u32).collect()
}

/// The model after the file's experiences.
fn adapted(golden: &Golden<'_>, name: &str, device: Device) -> (Tape, Box<dyn Module>) {
    let mut tape = Tape::new(device).expect("a device");
    tape.manual_seed(number(&golden.meta["seed"]) as u64);
    let mut model = build(&mut tape, name);
    for experience in golden.meta["experiences"].as_array().expect("a list") {
        let adaptation = Adaptation {
            training: experience[0].as_bool().expect("a bool"),
            task_label: number(&experience[1]) as u32,
            classes: &numbers(&experience[2]),
        };
        model.adapt(&mut tape, &adaptation);
    }
    (tape, model)
}

/// Names, shapes and bits of everything in the state dict, and where the generator stands.
#[test]
fn states_after_growth_are_avalanches_bit_for_bit() {
    let bytes = bytes("heads.safetensors");
    let golden = Golden::new(&bytes);
    assert_eq!(golden.meta["states"].as_object().map(|s| s.len()), Some(9));
    for name in MODELS {
        let (mut tape, _) = adapted(&golden, name, Device::Cpu);
        let mut found: BTreeMap<String, (Vec<usize>, String)> = (tape.state_dict().into_iter())
            .map(|(name, value)| (name, (value.shape().to_vec(), fnv1a64(&value))))
            .collect();
        for (layer, batches) in tape.batches() {
            let count = ArrayD::from_elem(vec![], batches as f32);
            let entry = (vec![], fnv1a64(&count));
            found.insert(format!("{layer}.num_batches_tracked"), entry);
        }
        let state = &golden.meta["states"][name];
        let entries = state["entries"].as_array().expect("a list");
        for entry in entries {
            let key = entry["name"].as_str().expect("a string");
            let shape = entry["shape"].as_array().expect("a list");
            let hash = entry["fnv1a64"].as_str().expect("a string");
            let expected = (shape.iter().map(number).collect(), hash.to_string());
            assert_eq!(
                found.remove(key),
                Some(expected),
                "{name}: {key}: shape, hash"
            );
        }
        assert!(found.is_empty(), "{name}: not in Avalanche: {found:?}");
        let next = f64::from(tape.generator().rand_f32());
        let want = state["next_random"].as_f64().expect("a number");
        assert!((next - want).abs() <= 1e-8, "{name}: {next}, {want}");
    }
}

/// Compares logits: masked units hold -1000 exactly, the others as closely as if there were none.
#[track_caller]
fn check_logits(what: &str, got: &ArrayD<f32>, want: &ArrayD<f32>, deviation: f64) {
    let places = |a: &ArrayD<f32>| a.mapv(|x| x == -1000.0);
    assert_eq!(places(got), places(want), "{what}: masked units");
    let rest = |a: &ArrayD<f32>| a.mapv(|x| if x == -1000.0 { 0.0 } else { x });
    check(what, &rest(got), &rest(want), deviation);
}

fn check_model(golden: &Golden<'_>, name: &str, device: Device) {
    let (mut tape, model) = adapted(golden, name, device);
    let shape = &golden.meta["input_shape"][name];
    let [c, h, w] = [0, 1, 2].map(|i| number(&shape[i]));
    let (tasks, labels) = (
        numbers(&golden.meta["tasks"]),
        numbers(&golden.meta["labels"]),
    );
    let x: Vec<f32> = (0..tasks.len() * c * h * w)
        .map(|i| ((37 * i % 101) as f64 / 101.0 - 0.5) as f32)
        .collect();
    let run = |tape: &mut Tape, mode| {
        tape.begin(mode);
        let x = tape.input(&[tasks.len(), c, h, w], &x);
        model.forward_tasks(tape, x, &tasks)
    };
    let deviation = |kind: &str| {
        let value = &golden.meta["f32_deviation"][name][kind];
        value.as_f64().expect("a deviation")
    };
    let what = |key: &str| format!("{name}/{key} on {device:?}");
    let want = |key: &str| golden.get(&format!("{name}/{key}"));
    for (key, mode) in [("logits_eval", Mode::Eval), ("logits_train", Mode::Train)] {
        let logits = run(&mut tape, mode);
        let got = tape.value(logits).into_owned();
        check_logits(&what(key), &got, &want(key), deviation(key));
    }
    let logits = run(&mut tape, Mode::EvalWithGrad);
    assert_eq!(tape.shape(logits).dim(1), model.n_classes().expect("known"));

    // A model of its own: batch normalisation has moved its averages.
    let (mut tape, model) = adapted(golden, name, device);
    tape.begin(Mode::Train);
    let input = tape.input(&[tasks.len(), c, h, w], &x);
    let logits = model.forward_tasks(&mut tape, input, &tasks);
    let loss = tape.cross_entropy(logits, &labels);
    tape.backward(loss);
    let total = ArrayD::from_elem(vec![1], tape.item(loss));
    check(
        &what("loss"),
        &total,
        &want("loss_train"),
        deviation("loss_train"),
    );

    let state: BTreeMap<_, _> = tape.state_dict().into_iter().collect();
    let ids: BTreeMap<_, _> = (tape.parameters().into_iter())
        .map(|id| (tape.parameter_name(id).to_string(), id))
        .collect();
    let prefix = format!("{name}/");
    let mut gradients = 0;
    for key in golden.keys() {
        let Some(key) = key.strip_prefix(&prefix) else {
            continue;
        };
        if let Some(parameter) = key.strip_prefix("grad/") {
            gradients += 1;
            // Rounding flips units at the kink of ReLU: gradients of a ResNet in f32 are not held.
            if name.contains("resnet") && device == Device::Cpu {
                continue;
            }
            let grad = tape.parameter_grad(ids[parameter]).expect("a gradient");
            check(&what(key), &grad, &want(key), deviation("grad"));
        } else if let Some(buffer) = key.strip_prefix("stats/") {
            check(&what(key), &state[buffer], &want(key), deviation("stats"));
        }
    }
    assert!(gradients >= 3, "{name}: only {gradients} gradients");
}

#[test]
fn models_with_growing_heads_are_avalanches() {
    let bytes = bytes("heads.safetensors");
    let golden = Golden::new(&bytes);
    for name in MODELS {
        for device in DEVICES {
            check_model(&golden, name, device);
        }
    }
}

/// Steps with momentum before and after the head grows.
#[test]
fn sgd_goes_on_after_growth_as_avalanches() {
    let bytes = bytes("heads.safetensors");
    let golden = Golden::new(&bytes);
    let deviation = |kind: &str| {
        let value = &golden.meta["f32_deviation"]["training"][kind];
        value.as_f64().expect("a deviation")
    };
    for device in DEVICES {
        let mut tape = Tape::new(device).expect("a device");
        tape.manual_seed(number(&golden.meta["seed"]) as u64);
        let model = SimpleMlp::new(&mut tape, 5, 48, 8, 1, 0.0);
        let mut model = with_incremental_head(&mut tape, model, 2);
        let sgd = Sgd::new(0.1).momentum(0.9);
        let x: Vec<f32> = (0..4 * 48)
            .map(|i| ((37 * i % 101) as f64 / 101.0 - 0.5) as f32)
            .collect();
        let mut losses = Vec::new();
        for classes in [[0, 1], [3, 2], [1, 6]] {
            let adaptation = Adaptation {
                classes: &classes,
                task_label: 0,
                training: true,
            };
            model.adapt(&mut tape, &adaptation);
            let labels = [0, 1, 2, 3].map(|i| classes[i % 2]);
            for _ in 0..3 {
                tape.begin(Mode::Train);
                let x = tape.input(&[4, 3, 4, 4], &x);
                let logits = model.forward(&mut tape, x);
                let loss = tape.cross_entropy(logits, &labels);
                tape.backward(loss);
                sgd.step(&mut tape);
                losses.push(tape.item(loss));
            }
        }
        let losses = ArrayD::from_shape_vec(vec![9], losses).expect("nine losses");
        let want = golden.get("training/losses");
        check(
            &format!("losses on {device:?}"),
            &losses,
            &want,
            deviation("losses"),
        );
        let after: Vec<_> = (golden.keys().into_iter())
            .filter_map(|key| Some(key.strip_prefix("training/after/")?.to_string()))
            .collect();
        assert_eq!(after.len(), 4);
        for id in tape.parameters() {
            let name = tape.parameter_name(id);
            let want = golden.get(&format!("training/after/{name}"));
            let what = format!("{name} on {device:?}");
            check(&what, &tape.parameter_value(id), &want, deviation("after"));
        }
    }
}

/// What a tape saves, another one loads after the same experiences; the masks come along.
#[test]
fn masks_travel_with_the_weights() {
    let bytes = bytes("heads.safetensors");
    let golden = Golden::new(&bytes);
    let (tape, _) = adapted(&golden, "mt-simple-mlp", Device::Cpu);
    let state: BTreeMap<_, _> = tape.state_dict().into_iter().collect();
    let units = flat(&state["classifier.active_units_T0"]);
    assert_eq!(units, [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    let (mut other, _) = adapted(&golden, "mt-simple-mlp", Device::Cpu);
    let mut changed = state.clone();
    changed.insert("classifier.active_units_T0".into(), ArrayD::ones(vec![7]));
    other.load_state_dict(&changed).expect("it fits");
    let after: BTreeMap<_, _> = other.state_dict().into_iter().collect();
    assert_eq!(after, changed);
    changed.insert("classifier.active_units_T0".into(), ArrayD::ones(vec![6]));
    let error = other.load_state_dict(&changed).unwrap_err().to_string();
    assert!(
        error.contains("active_units_T0: expected the shape [7]"),
        "{error}"
    );
}
