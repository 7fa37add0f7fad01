//! DER on the full Split-MNIST, beside a recorded run of Avalanche on PyTorch: the same classes, the
//! same samples in the buffer under the same keys after every experience, the same first losses.
//!
//! Needs the full MNIST (`unforget data get mnist`); without it the test says that it is skipped, and
//! `UNFORGET_REQUIRE=mnist` turns that into a failure. Rounding differences grow chaotically, so the
//! losses are compared only at the start; the recording holds how far Avalanche drifts from itself.

use serde_json::Value;
use std::sync::{Arc, Mutex};
use unforget::prelude::*;
use unforget::replay::Buffer;

struct Record(Arc<Mutex<Vec<f32>>>);

impl Plugin for Record {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        self.0.lock().unwrap().push(s.loss().total);
        Ok(())
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

/// Losses agree to 5e-5 of their size; a loss near 0 is the difference of large numbers, and there
/// Avalanche in f64 and in f32 are already 4e-7 apart.
fn assert_losses(got: &[f32], want: &[f64], what: &str) {
    let mut worst = 0.0f64;
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let (got, error) = (f64::from(got), (f64::from(got) - want).abs());
        worst = worst.max(error / want.abs().max(1e-2));
        let fits = error <= (5e-5 * want.abs()).max(1e-6);
        assert!(fits, "{what} {i}: expected {want}, found {got}");
    }
    println!(
        "{what}: {} losses, worst relative difference {worst:.1e}",
        want.len()
    );
}

#[test]
fn full_split_mnist_follows_avalanche() {
    let benchmark = match SplitMnist::full(None) {
        Ok(builder) => builder.n_experiences(5).seed(1).build().unwrap(),
        Err(missing) => {
            let required = std::env::var("UNFORGET_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|name| name == "mnist"),
                "{missing}"
            );
            eprintln!("skipped: the full MNIST is not here ({missing})");
            return;
        }
    };
    let golden: Value =
        serde_json::from_str(include_str!("../golden/avalanche_split_mnist.json")).unwrap();
    let order: Vec<f64> = benchmark
        .classes_order()
        .iter()
        .map(|&c| f64::from(c))
        .collect();
    assert_eq!(order, numbers(&golden["class_order"]));

    let mut tape = Tape::new(Device::Cpu).unwrap();
    tape.manual_seed(1);
    let model = Mlp::new(&mut tape, &[784, 100, 100, 10]);
    let losses = Arc::default();
    let mut strategy = Der::builder(tape, model, Sgd::new(0.03))
        .mem_size(200)
        .train_mb_size(10)
        .batch_size_mem(10)
        .alpha(0.2)
        .beta(0.5)
        .eval_mb_size(10)
        .plugin(Record(Arc::clone(&losses)))
        .build()
        .unwrap();
    let mut last = EvalResult::default();
    for (i, experience) in benchmark.train_stream().iter().enumerate() {
        strategy.train(experience).unwrap();
        last = strategy.eval(benchmark.test_stream()).unwrap();
        println!("after experience {i}: {last}");
        let Some(Buffer::ClassBalanced(buffer)) = &strategy.state().storage_policy else {
            panic!("DER keeps a class-balanced buffer");
        };
        let groups = golden["buffers"][i].as_array().unwrap();
        assert_eq!(
            buffer.groups().count(),
            groups.len(),
            "classes in the buffer"
        );
        for ((class, items), want) in buffer.groups().zip(groups) {
            assert_eq!(f64::from(class), want["class"].as_f64().unwrap());
            let indices: Vec<f64> = items.iter().map(|x| f64::from(x.source_index)).collect();
            assert_eq!(
                indices,
                numbers(&want["train_index"]),
                "class {class}, experience {i}"
            );
            for (item, key) in items.iter().zip(numbers(&want["keys"])) {
                assert!(
                    (f64::from(item.key) - key).abs() <= 1e-7,
                    "{} {key}",
                    item.key
                );
            }
        }
    }
    let losses = losses.lock().unwrap();
    assert_losses(&losses, &numbers(&golden["losses_first"]), "loss");
    let start = golden["losses_replay"]["first_iteration"].as_u64().unwrap() as usize;
    let replay = numbers(&golden["losses_replay"]["losses"]);
    assert_losses(&losses[start..], &replay, "loss with replay");
    let want = golden["evaluations"][4]["stream_accuracy"]
        .as_f64()
        .unwrap();
    println!("final accuracy {:.4}, Avalanche {want:.4}", last.accuracy());
    assert!(
        (last.accuracy() - want).abs() <= 0.005,
        "{} against {want}",
        last.accuracy()
    );
}
