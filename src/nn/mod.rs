//! Layers and models: structs of parameter ids with a forward pass. They hold no numbers and no type
//! parameter, so a model exists once for every device.
//!
//! A layer draws its initial weights from the tape's generator exactly as PyTorch draws them from
//! its global one: the same seed and the same order of construction give the same weights, bit for
//! bit.

mod cnn;
mod head;
mod incremental;
mod init;
mod layers;
mod mlp;
pub mod models;
mod multi_head;
mod resnet;
mod resnet32;

pub use cnn::{LeNet5, SimpleCnn};
pub use head::{Backbone, Head, as_multitask, with_incremental_head, with_multi_head};
pub use incremental::{INITIAL_OUT_FEATURES, IncrementalClassifier};
pub use layers::{BatchNorm, Conv2d, Linear};
pub use mlp::{Mlp, SimpleMlp};
pub use multi_head::MultiHeadClassifier;
pub use resnet::ResNet18;
pub use resnet32::ResNet32;

use crate::tape::{Tape, Var};

/// What a model is told of an experience before it is trained or evaluated on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adaptation<'a> {
    /// The labels that occur in it.
    pub classes: &'a [u32],
    /// The task that they belong to.
    pub task_label: u32,
    /// Whether it is trained on; otherwise it is only evaluated.
    pub training: bool,
}

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

    /// The same for rows with task labels, one a row. A model that does not care about tasks leaves
    /// this as it is.
    fn forward_tasks(&self, tape: &mut Tape, x: Var, task_labels: &[u32]) -> Var {
        let _ = task_labels;
        self.forward(tape, x)
    }

    /// Makes room for what an experience brings: new classes, a new task. Called between steps,
    /// before each experience that is trained or evaluated (Avalanche's model adaptation), once for
    /// each of its task labels. A second time, with the same classes, task and purpose, must change
    /// nothing. Most models do nothing.
    fn adapt(&mut self, tape: &mut Tape, adaptation: &Adaptation<'_>) {
        let _ = (tape, adaptation);
    }

    /// Which logits mean something for a sample of this task: not those beyond the end of the list,
    /// nor those of units that are masked. `None` if all do.
    fn active_units(&self, tape: &Tape, task_label: u32) -> Option<Vec<bool>> {
        let _ = (tape, task_label);
        None
    }

    /// The model as features and a head, if it is made of them.
    fn backbone(&self) -> Option<&dyn Backbone> {
        None
    }

    /// The number of logits, if the model knows it; the strategy then checks labels against it
    /// before training rather than in the middle.
    fn n_classes(&self) -> Option<usize> {
        None
    }

    /// Whether, in training too, each row of the output depends on its own row of the input alone and
    /// not on chance: no batch normalisation, no dropout. A method that needs a sample twice in a step
    /// then shows it once. `false` is always safe.
    fn treats_rows_apart(&self) -> bool {
        false
    }
}

impl Module for Box<dyn Module> {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        self.as_ref().forward(tape, x)
    }

    fn forward_tasks(&self, tape: &mut Tape, x: Var, task_labels: &[u32]) -> Var {
        self.as_ref().forward_tasks(tape, x, task_labels)
    }

    fn adapt(&mut self, tape: &mut Tape, adaptation: &Adaptation<'_>) {
        self.as_mut().adapt(tape, adaptation);
    }

    fn active_units(&self, tape: &Tape, task_label: u32) -> Option<Vec<bool>> {
        self.as_ref().active_units(tape, task_label)
    }

    fn backbone(&self) -> Option<&dyn Backbone> {
        self.as_ref().backbone()
    }

    fn n_classes(&self) -> Option<usize> {
        self.as_ref().n_classes()
    }

    fn treats_rows_apart(&self) -> bool {
        self.as_ref().treats_rows_apart()
    }
}
