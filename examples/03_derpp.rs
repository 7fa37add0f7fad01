//! DER++ against fine-tuning on five experiences of two digits each: one remembers, one forgets.
//!
//! `cargo run --release --example 03_derpp`

use unforget::prelude::*;

fn main() -> Result<()> {
    let benchmark = SplitMnist::embedded().n_experiences(5).seed(1).build()?;

    println!("DER++ (alpha 0.2, beta 0.5, 200 stored samples)");
    let (tape, model) = network()?;
    let der = Der::builder(tape, model, Sgd::new(0.03))
        .mem_size(200)
        .train_mb_size(10)
        .alpha(0.2)
        .beta(0.5)
        .eval_mb_size(100)
        .build()?;
    let remembered = learn(der, &benchmark)?;

    println!("fine-tuning");
    let (tape, model) = network()?;
    let naive = Naive::builder(tape, model, Sgd::new(0.03))
        .train_mb_size(10)
        .eval_mb_size(100)
        .build()?;
    let forgotten = learn(naive, &benchmark)?;

    println!("final accuracy over all ten digits: {remembered:.3} against {forgotten:.3}");
    Ok(())
}

/// The same initial weights for both.
fn network() -> Result<(Tape, Mlp)> {
    let mut tape = Tape::new(Device::Cpu)?;
    tape.manual_seed(1);
    let model = Mlp::new(&mut tape, &[784, 100, 100, 10]);
    Ok((tape, model))
}

fn learn(mut strategy: Strategy, benchmark: &Benchmark) -> Result<f64> {
    let mut accuracy = 0.0;
    for experience in benchmark.train_stream() {
        strategy.train(experience)?;
        let result = strategy.eval(benchmark.test_stream())?;
        println!(
            "  digits {:?}: {result}",
            experience.classes_in_this_experience()
        );
        accuracy = result.accuracy();
    }
    Ok(accuracy)
}
