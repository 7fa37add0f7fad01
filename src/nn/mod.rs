//! Layers and models: structs of parameter ids with a forward pass. They hold no numbers and no type
//! parameter, so a model exists once for every device.
//!
//! A layer draws its initial weights from the tape's generator exactly as PyTorch draws them from
//! its global one: the same seed and the same order of construction give the same weights, bit for
//! bit.

mod cnn;
mod init;
mod layers;
mod mlp;
pub mod models;
mod resnet;

pub use cnn::{LeNet5, SimpleCnn};
pub use layers::{BatchNorm, Conv2d, Linear};
pub use mlp::{Mlp, SimpleMlp};
pub use resnet::ResNet18;

use crate::tape::{Tape, Var};

/// A model, or a part of one: a forward pass over parameters that live on a tape.
///
/// ```
/// use unforget::nn::{Linear, Module};
/// use unforget::tape::{Device, Mode, Tape, Var};
///
/// struct Twice(Linear);
///
/// impl Module for Twice {
///     fn forward(&self, tape: &mut Tape, x: Var) -> Var {
///         let x = tape.flatten(x);
///         let y = self.0.forward(tape, x);
///         tape.add(y, y)
///     }
/// }
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let model = Twice(Linear::new(&mut tape, "head", 4, 2));
/// tape.begin(Mode::Eval);
/// let x = tape.input(&[3, 1, 2, 2], &[0.5; 12]);
/// let logits = model.forward(&mut tape, x);
/// assert_eq!(tape.value(logits).shape(), [3, 2]);
/// # Ok::<(), unforget::Error>(())
/// ```
pub trait Module: Send {
    /// Computes the output, usually logits `[N, classes]`, of a batch of images `[N, C, H, W]`.
    fn forward(&self, tape: &mut Tape, x: Var) -> Var;

    /// The number of logits, if the model knows it; the strategy then checks labels against it
    /// before training rather than in the middle.
    fn n_classes(&self) -> Option<usize> {
        None
    }
}

impl Module for Box<dyn Module> {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        self.as_ref().forward(tape, x)
    }

    fn n_classes(&self) -> Option<usize> {
        self.as_ref().n_classes()
    }
}
