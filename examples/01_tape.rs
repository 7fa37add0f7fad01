//! The tape by itself: record, run, differentiate, and fit a small network to a curve.
//!
//! `cargo run --release --example 01_tape`

use unforget::prelude::*;

fn main() -> Result<()> {
    let mut tape = Tape::new(Device::Cpu)?;

    // A step begins with `begin`. `variable` asks for a gradient, `input` does not.
    tape.begin(Mode::Train);
    let x = tape.variable(&[2, 2], &[1.0, -2.0, 3.0, -4.0]);
    let y = tape.relu(x);
    let zero = tape.input(&[2, 2], &[0.0; 4]);
    let loss = tape.mse(y, zero);
    tape.backward(loss);
    println!("mean of relu(x)²  {}", tape.item(loss));
    let gradient = tape.grad(x).expect("x is a variable");
    println!("its gradient      {gradient}");

    // Parameters live on the tape; a layer only knows their ids. The same seed gives the initial
    // weights that PyTorch draws.
    tape.manual_seed(0);
    let hidden = Linear::new(&mut tape, "hidden", 1, 32);
    let output = Linear::new(&mut tape, "output", 32, 1);
    let sgd = Sgd::new(0.05).momentum(0.9);

    let xs: Vec<f32> = (0..64).map(|i| i as f32 / 16.0 - 2.0).collect();
    let ys: Vec<f32> = xs.iter().map(|x| (1.5 * x).sin()).collect();
    for step in 0..=1000 {
        tape.begin(Mode::Train);
        let x = tape.input(&[64, 1], &xs);
        let wanted = tape.input(&[64, 1], &ys);
        let h = hidden.forward(&mut tape, x);
        let h = tape.tanh(h);
        let y = output.forward(&mut tape, h);
        let loss = tape.mse(y, wanted);
        if step % 250 == 0 {
            println!("step {step:>4}  loss {:.5}", tape.item(loss));
        }
        tape.backward(loss);
        sgd.step(&mut tape);
    }
    Ok(())
}
