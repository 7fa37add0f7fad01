//! Extending from outside: a model of one's own (a residual perceptron), and a plugin that lowers
//! the learning rate with every experience and reports the loss terms.
//!
//! `cargo run --release --example 04_own_strategy`

use unforget::prelude::*;

/// `logits = head(h + relu(block(h)))` with `h = relu(stem(x))`.
struct Residual {
    stem: Linear,
    block: Linear,
    head: Linear,
}

impl Module for Residual {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        let x = tape.flatten(x);
        let h = self.stem.forward(tape, x);
        let h = tape.relu(h);
        let r = self.block.forward(tape, h);
        let r = tape.relu(r);
        let h = tape.add(h, r); // h is used twice: its gradients add up
        self.head.forward(tape, h)
    }
}

/// Divides the learning rate by the number of experiences met.
struct Decay(f32);

impl Plugin for Decay {
    fn before_training_exp(&mut self, s: &mut State) -> Result<()> {
        s.optimizer.lr = self.0 / (1.0 + s.clock.train_exp_counter as f32);
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        let (steps, lr) = (s.clock.train_iterations, s.optimizer.lr);
        println!("after step {steps}: lr {lr:.4}, {:?}", s.loss());
        Ok(())
    }
}

fn main() -> Result<()> {
    let benchmark = SplitMnist::embedded().n_experiences(5).seed(1).build()?;
    let mut tape = Tape::new(Device::Cpu)?;
    let stem = Linear::new(&mut tape, "stem", 784, 64);
    let block = Linear::new(&mut tape, "block", 64, 64);
    let head = Linear::new(&mut tape, "head", 64, 10);
    let mut strategy = Der::builder(tape, Residual { stem, block, head }, Sgd::new(0.05))
        .train_mb_size(10)
        .eval_mb_size(100)
        .plugin(Decay(0.05))
        .build()?;
    strategy.train(benchmark.train_stream())?;
    println!("{}", strategy.eval(benchmark.test_stream())?);
    Ok(())
}
