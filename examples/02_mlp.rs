//! A perceptron on all ten digits at once, with a training loop of one's own: what the strategies
//! do for you, and the accuracy that continual learning is measured against.
//!
//! `cargo run --release --example 02_mlp`

use unforget::data::Group;
use unforget::prelude::*;

fn main() -> Result<()> {
    // One experience holds all classes.
    let benchmark = SplitMnist::embedded().n_experiences(1).seed(1).build()?;
    let train = benchmark.train_stream()[0].dataset();
    let test = benchmark.test_stream()[0].dataset();

    let mut tape = Tape::new(Device::Cpu)?;
    tape.manual_seed(1);
    let model = Mlp::new(&mut tape, &[784, 100, 100, 10]);
    let sgd = Sgd::new(0.05).momentum(0.9);

    for epoch in 0..5 {
        let order = tape.generator().randperm(train.len());
        let mut sum = 0.0;
        for indices in order.chunks(50) {
            let (x, labels) = batch(train, Group::Train, indices);
            tape.begin(Mode::Train);
            let x = tape.input(&[labels.len(), 1, 28, 28], &x);
            let logits = model.forward(&mut tape, x);
            let loss = tape.cross_entropy(logits, &labels);
            sum += tape.item(loss) * labels.len() as f32;
            tape.backward(loss);
            sgd.step(&mut tape);
        }

        let everything: Vec<u32> = (0..test.len() as u32).collect();
        let (x, labels) = batch(test, Group::Eval, &everything);
        tape.begin(Mode::Eval);
        let x = tape.input(&[labels.len(), 1, 28, 28], &x);
        let logits = model.forward(&mut tape, x);
        let mut correct = 0;
        for (row, &label) in tape.value(logits).outer_iter().zip(&labels) {
            let largest = (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            correct += usize::from(largest == Some(label as usize));
        }
        let loss = sum / train.len() as f32;
        let accuracy = correct as f32 / test.len() as f32;
        println!("epoch {epoch}  loss {loss:.4}  test accuracy {accuracy:.3}");
    }
    Ok(())
}

/// The pixels and the labels of some samples.
fn batch(data: &ClassificationDataset, group: Group, indices: &[u32]) -> (Vec<f32>, Vec<u32>) {
    let mut pixels = vec![0.0; indices.len() * 784];
    for (&i, out) in indices.iter().zip(pixels.chunks_mut(784)) {
        data.write_sample(i as usize, group, out);
    }
    let labels = indices.iter().map(|&i| data.target(i as usize));
    (pixels, labels.collect())
}
