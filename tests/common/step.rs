//! A training step of Dark Experience Replay on made-up data.

use unforget::nn::Module;
use unforget::optim::Sgd;
use unforget::tape::{DerLoss, Device, Mode, Tape};

const CLASSES: usize = 10;

/// A model, a batch for it (half replay, half current) and an optimiser.
pub struct Trainer {
    pub tape: Tape,
    model: Box<dyn Module>,
    dims: [usize; 4],
    x: Vec<f32>,
    labels: Vec<u32>,
    targets: Vec<f32>,
    sgd: Sgd,
}

impl Trainer {
    /// A model with seed 0 and `n` images of `[c, h, w]`.
    pub fn new<M: Module + 'static>(
        n: usize,
        [c, h, w]: [usize; 3],
        build: fn(&mut Tape) -> M,
    ) -> Self {
        let mut tape = Tape::new(Device::Cpu).expect("the processor");
        tape.manual_seed(0);
        let model = Box::new(build(&mut tape));
        let number = |i: usize| (i * 37 % 101) as f32 / 101.0 - 0.5;
        Trainer {
            tape,
            model,
            dims: [n, c, h, w],
            x: (0..n * c * h * w).map(number).collect(),
            labels: (0..n).map(|i| (i * 7 % CLASSES) as u32).collect(),
            targets: (0..n / 2 * CLASSES).map(|i| 2.0 * number(i)).collect(),
            sgd: Sgd::new(0.05).momentum(0.9).weight_decay(1e-4),
        }
    }

    /// One step; returns the loss.
    pub fn step(&mut self) -> f32 {
        let tape = &mut self.tape;
        tape.begin(Mode::Train);
        let x = tape.input(&self.dims, &self.x);
        let logits = self.model.forward(tape, x);
        let loss = DerLoss {
            labels: &self.labels,
            targets: &self.targets,
            widths: &[],
            replay: self.dims[0] / 2,
            alpha: 0.5,
            beta: 0.5,
        };
        let loss = tape.der_loss(logits, &loss);
        tape.backward(loss);
        self.sgd.step(tape);
        tape.item(loss)
    }
}

/// Runs `work` on `threads` threads.
pub fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    Tape::on_threads(threads, work).expect("threads")
}
