//! The small class-incremental benchmark of `make_metrics.py`: ten features and ten classes by
//! formula, two classes in each of five experiences.

use unforget::data::{Dataset, Transform, TransformGroups};
use unforget::prelude::*;
use unforget::training::StrategyBuilder;

const CLASSES: usize = 10;
const FEATURES: usize = 10;

/// Features and labels, computed in f64 and rounded to f32.
fn samples(n: usize, offset: usize) -> Dataset {
    let mut x = Vec::new();
    for i in 0..n {
        for j in 0..FEATURES {
            let wave = (((i + offset) * 7 + 13 * j) % 17) as f64 / 17.0 - 0.5;
            let peak = if j == i % CLASSES { 0.9 } else { 0.0 };
            x.push((wave + peak) as f32);
        }
    }
    let y = (0..n).map(|i| (i % CLASSES) as u32).collect();
    Dataset::from_f32("formula", [FEATURES, 1, 1], x, y, CLASSES).expect("a data set")
}

pub fn builder() -> NcBenchmark {
    let transforms = TransformGroups::same(Transform::default());
    NcBenchmark::new(samples(100, 0), samples(50, 5), transforms)
        .n_experiences(5)
        .seed(0)
}

pub fn benchmark() -> Benchmark {
    builder().build().expect("a benchmark")
}

/// DER as the script configures it.
pub fn strategy() -> StrategyBuilder {
    let mut tape = Tape::new(Device::Cpu).expect("the processor");
    tape.manual_seed(123);
    let model = SimpleMlp::new(&mut tape, CLASSES, FEATURES, 12, 1, 0.0);
    Der::builder(tape, model, Sgd::new(0.1).momentum(0.9))
        .mem_size(17)
        .batch_size_mem(5)
        .train_mb_size(6)
        .train_epochs(3)
        .eval_mb_size(8)
        .alpha(0.2)
        .beta(0.5)
}
