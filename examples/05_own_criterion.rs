//! A criterion of one's own: cross-entropy with label smoothing, used for current and for replayed
//! samples alike.
//!
//! `cargo run --release --example 05_own_criterion`

use unforget::prelude::*;
use unforget::tape::LossRows;
use unforget::training::Criterion;

/// `(1 - s)·CE(y) + s·mean over classes of CE(class)`, as PyTorch's `label_smoothing`.
struct Smoothed {
    classes: u32,
    smoothing: f64,
}

impl Criterion for Smoothed {
    fn loss(&self, tape: &mut Tape, logits: Var, labels: &[u32]) -> Var {
        let n = labels.len() as f64;
        let mut term = |labels: &[u32], weight: f64| {
            let rows = LossRows {
                labels,
                current: 0..labels.len(),
                targets: &[],
                first_target: 0,
                widths: &[],
            };
            tape.row_loss(logits, &rows, |_| (weight / n, 0.0))
        };
        let parts: Vec<Var> = std::iter::once(term(labels, 1.0 - self.smoothing))
            .chain((0..self.classes).map(|class| {
                let same = vec![class; labels.len()];
                term(&same, self.smoothing / f64::from(self.classes))
            }))
            .collect();
        parts
            .into_iter()
            .reduce(|a, b| tape.add(a, b))
            .expect("one part at least")
    }
}

fn main() -> Result<()> {
    let benchmark = SplitMnist::embedded().n_experiences(5).seed(1).build()?;
    for smoothing in [0.0, 0.1] {
        let mut tape = Tape::new(Device::Cpu)?;
        tape.manual_seed(1);
        let model = Mlp::new(&mut tape, &[784, 100, 100, 10]);
        let mut strategy = Der::builder(tape, model, Sgd::new(0.03))
            .train_mb_size(10)
            .eval_mb_size(100)
            .alpha(0.2)
            .criterion(Smoothed {
                classes: 10,
                smoothing,
            })
            .build()?;
        strategy.train(benchmark.train_stream())?;
        let accuracy = strategy.eval(benchmark.test_stream())?.accuracy();
        println!(
            "label smoothing {smoothing}: accuracy {:.1} %",
            100.0 * accuracy
        );
    }
    Ok(())
}
