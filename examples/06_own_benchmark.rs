//! A benchmark of one's own: two-dimensional points around six centres, two centres in each of three
//! experiences, made from arrays.
//!
//! `cargo run --release --example 06_own_benchmark`

use unforget::benchmarks::{Benchmark, Experience, Stream};
use unforget::data::TransformGroups;
use unforget::prelude::*;

/// `n` points of each of the classes `2k` and `2k + 1`, on a circle with a little noise.
fn points(k: u32, n: usize, noise: &mut unforget::rng::TorchGenerator) -> Result<Dataset> {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for class in [2 * k, 2 * k + 1] {
        let angle = std::f32::consts::TAU * class as f32 / 6.0;
        for _ in 0..n {
            x.push(angle.cos() + noise.uniform(-0.3, 0.3));
            x.push(angle.sin() + noise.uniform(-0.3, 0.3));
            y.push(class);
        }
    }
    Dataset::from_f32("points", [2, 1, 1], x, y, 6)
}

fn stream(name: &str, n: usize, seed: u64) -> Result<Stream> {
    let mut noise = unforget::rng::TorchGenerator::manual_seed(seed);
    let experiences = (0..3).map(|k| {
        let data = points(k, n, &mut noise)?;
        let view = ClassificationDataset::new(data, TransformGroups::default());
        Ok(Experience::from_dataset(view, k as usize, name))
    });
    Ok(Stream::new(name, experiences.collect::<Result<_>>()?))
}

fn main() -> Result<()> {
    let benchmark =
        Benchmark::from_streams("points", stream("train", 200, 0)?, stream("test", 50, 1)?);
    let mut tape = Tape::new(Device::Cpu)?;
    let model = Mlp::new(&mut tape, &[2, 32, 6]);
    let mut strategy = Der::builder(tape, model, Sgd::new(0.1))
        .mem_size(30)
        .train_mb_size(10)
        .train_epochs(5)
        .eval_mb_size(100)
        .build()?;
    for experience in benchmark.train_stream() {
        strategy.train(experience)?;
        println!("{}", strategy.eval(benchmark.test_stream())?);
    }
    Ok(())
}
