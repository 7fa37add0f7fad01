//! The last layer of a model, which may grow or divide by task, and models made of features and a
//! head.

use super::{Adaptation, IncrementalClassifier, Linear, Module, MultiHeadClassifier};
use crate::tape::{Tape, Var};

/// What turns features into logits.
#[derive(Clone, Debug)]
pub enum Head {
    /// A layer of constant width.
    Linear(Linear),
    /// A layer that grows with the classes.
    Incremental(IncrementalClassifier),
    /// A growing layer for each task.
    MultiHead(MultiHeadClassifier),
}

impl Head {
    fn module(&self) -> &dyn Module {
        match self {
            Head::Linear(head) => head,
            Head::Incremental(head) => head,
            Head::MultiHead(head) => head,
        }
    }
}

impl Module for Head {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        self.module().forward(tape, x)
    }

    fn forward_tasks(&self, tape: &mut Tape, x: Var, task_labels: &[u32]) -> Var {
        self.module().forward_tasks(tape, x, task_labels)
    }

    fn adapt(&mut self, tape: &mut Tape, adaptation: &Adaptation<'_>) {
        match self {
            Head::Linear(_) => {}
            Head::Incremental(head) => head.adapt(tape, adaptation),
            Head::MultiHead(head) => head.adapt(tape, adaptation),
        }
    }

    fn n_classes(&self) -> Option<usize> {
        self.module().n_classes()
    }

    fn active_units(&self, tape: &Tape, task_label: u32) -> Option<Vec<bool>> {
        self.module().active_units(tape, task_label)
    }
}

/// A model made of a feature extractor and a [`Head`]: all it has to say is what the features are;
/// that makes it a [`Module`] that can also have a growing head or one for each task.
pub trait Backbone: Send {
    /// What the head sees of a batch of images, `[N, features]` (Avalanche's `get_features`).
    fn features(&self, tape: &mut Tape, x: Var) -> Var;
    /// The head.
    fn head(&self) -> &Head;
    /// The head, to be adapted or replaced.
    fn head_mut(&mut self) -> &mut Head;

    /// As [`Module::treats_rows_apart`], of the features; every [`Head`] does.
    fn features_treat_rows_apart(&self) -> bool {
        false
    }
}

impl<M: Backbone> Module for M {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        let x = self.features(tape, x);
        self.head().forward(tape, x)
    }

    fn forward_tasks(&self, tape: &mut Tape, x: Var, task_labels: &[u32]) -> Var {
        let x = self.features(tape, x);
        self.head().forward_tasks(tape, x, task_labels)
    }

    fn adapt(&mut self, tape: &mut Tape, adaptation: &Adaptation<'_>) {
        self.head_mut().adapt(tape, adaptation);
    }

    fn backbone(&self) -> Option<&dyn Backbone> {
        Some(self)
    }

    fn n_classes(&self) -> Option<usize> {
        self.head().n_classes()
    }

    fn active_units(&self, tape: &Tape, task_label: u32) -> Option<Vec<bool>> {
        self.head().active_units(tape, task_label)
    }

    fn treats_rows_apart(&self) -> bool {
        self.features_treat_rows_apart()
    }
}

/// The linear head of a model and the name of the attribute that holds it in PyTorch: `classifier`
/// for a layer named `classifier` or, inside an `nn.Sequential`, `classifier.0`.
#[track_caller]
fn linear_head<M: Backbone>(tape: &Tape, model: &M, what: &str) -> (Linear, String) {
    let Head::Linear(linear) = model.head() else {
        panic!("{what}: the model's head is already one that grows");
    };
    let name = tape.parameter_name(linear.weight);
    (*linear, name.split('.').next().unwrap_or(name).to_string())
}

/// The model with a growing head in place of its linear one, as `model.classifier =
/// IncrementalClassifier(in_features, initial_out_features)` does to an Avalanche model.
///
/// # Panics
/// If its head is not a [`Head::Linear`].
#[track_caller]
pub fn with_incremental_head<M: Backbone>(
    tape: &mut Tape,
    mut model: M,
    initial_out_features: usize,
) -> M {
    let (mut linear, name) = linear_head(tape, &model, "with_incremental_head");
    linear.replace(tape, &format!("{name}.classifier"), initial_out_features);
    let head = IncrementalClassifier::around(tape, &name, linear);
    *model.head_mut() = Head::Incremental(head);
    model
}

/// The model with a head for each task in place of its linear one, as `model.classifier =
/// MultiHeadClassifier(in_features, initial_out_features)` does to an Avalanche model.
///
/// # Panics
/// If its head is not a [`Head::Linear`].
#[track_caller]
pub fn with_multi_head<M: Backbone>(
    tape: &mut Tape,
    mut model: M,
    initial_out_features: usize,
) -> M {
    let (mut linear, name) = linear_head(tape, &model, "with_multi_head");
    let first = format!("{name}.classifiers.0.classifier");
    linear.replace(tape, &first, initial_out_features);
    *model.head_mut() = Head::MultiHead(MultiHeadClassifier::around(tape, &name, linear));
    model
}

/// Avalanche's `as_multitask`: the model with a head for each task, of which that of task 0 has the
/// weights of the old head. As there, a fresh layer is drawn all the same, and what is not the head
/// gets names that begin with `model.`; the model must have the tape to itself.
///
/// # Panics
/// If its head is not a [`Head::Linear`].
///
/// ```
/// use unforget::nn::{Module, SimpleMlp, as_multitask};
/// use unforget::tape::{Device, Tape};
///
/// let mut tape = Tape::new(Device::Cpu)?;
/// let model = SimpleMlp::new(&mut tape, 10, 784, 512, 1, 0.5);
/// let model = as_multitask(&mut tape, model);
/// let names: Vec<String> = tape.state_dict().into_iter().map(|entry| entry.0).collect();
/// assert_eq!(names[0], "model.features.0.weight");
/// assert_eq!(names[2], "classifier.classifiers.0.classifier.weight");
/// # Ok::<(), unforget::Error>(())
/// ```
#[track_caller]
pub fn as_multitask<M: Backbone>(tape: &mut Tape, mut model: M) -> M {
    let (linear, name) = linear_head(tape, &model, "as_multitask");
    tape.prefix_names("model.");
    Linear::draw(tape, linear.inputs, linear.outputs);
    linear.rename(tape, &format!("{name}.classifiers.0.classifier"));
    *model.head_mut() = Head::MultiHead(MultiHeadClassifier::around(tape, &name, linear));
    model
}
