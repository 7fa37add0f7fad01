//! The small run that the golden scripts repeat: data by formula, three experiences of two classes.

use std::sync::{Arc, Mutex};
use unforget::data::{Dataset, Transform, TransformGroups};
use unforget::prelude::*;

/// Features and labels by formula, computed in f64 and stored in f32.
pub fn samples(n: usize, offset: usize) -> Dataset {
    let mut x = Vec::new();
    for i in 0..n {
        for j in 0..6 {
            let wave = (((i + offset) * 7 + 13 * j) % 17) as f64 / 17.0 - 0.5;
            x.push((wave + if j == i % 6 { 0.5 } else { 0.0 }) as f32);
        }
    }
    let y = (0..n).map(|i| (i % 6) as u32).collect();
    Dataset::from_f32("formula", [6, 1, 1], x, y, 6).unwrap()
}

/// Three experiences of 20 samples for training and 8 for testing, each with a task label of its own
/// if `multi_task`.
pub fn benchmark(multi_task: bool) -> Benchmark {
    let transforms = TransformGroups::same(Transform::default());
    NcBenchmark::new(samples(60, 0), samples(24, 5), transforms)
        .n_experiences(3)
        .seed(0)
        .return_task_id(multi_task)
        .build()
        .unwrap()
}

/// The same experiences of ascending classes.
pub fn ascending() -> Benchmark {
    let transforms = TransformGroups::same(Transform::default());
    NcBenchmark::new(samples(60, 0), samples(24, 5), transforms)
        .n_experiences(3)
        .fixed_class_order((0..6).collect::<Vec<_>>())
        .build()
        .unwrap()
}

/// The perceptron 6-8-6 with the weights of seed 123.
pub fn model() -> (Tape, SimpleMlp) {
    model_on(Device::Cpu)
}

/// The same on any device.
pub fn model_on(device: Device) -> (Tape, SimpleMlp) {
    let mut tape = Tape::new(device).unwrap();
    tape.manual_seed(123);
    let model = SimpleMlp::new(&mut tape, 6, 6, 8, 1, 0.0);
    (tape, model)
}

/// The loss of each iteration, and the learning rate with which the optimizer steps.
#[derive(Clone, Default)]
pub struct Record(pub Arc<Mutex<Vec<(f32, f32)>>>);

impl Record {
    /// What was recorded.
    pub fn get(&self) -> Vec<(f32, f32)> {
        self.0.lock().unwrap().clone()
    }
}

impl Plugin for Record {
    fn before_update(&mut self, s: &mut State) -> Result<()> {
        self.0.lock().unwrap().push((0.0, s.optimizer.lr));
        Ok(())
    }

    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if let Some(last) = self.0.lock().unwrap().last_mut() {
            last.0 = s.loss().total;
        }
        Ok(())
    }
}
