//! A classifier for each task.

use super::incremental::{MASK_VALUE, activate, units_for};
use super::{Adaptation, IncrementalClassifier, Linear, Module};
use crate::tape::{MaskId, Tape, Var};

/// The head of one task, and which of its units have been trained.
#[derive(Clone, Debug)]
struct TaskHead {
    task: u32,
    head: IncrementalClassifier,
    units: MaskId,
}

/// Avalanche's `MultiHeadClassifier`: a growing classifier for each task. A mini-batch is divided by
/// task label, each row goes through the head of its task, and the logits come together in a matrix
/// as wide as the largest class of all tasks; columns beyond a head's width are 0. With masking, which
/// is the default, units within a head that have not been trained give -1000.
///
/// The head of task 0 exists from the start; others are made when an experience brings their task.
/// Names as in Avalanche: `classifiers.T.classifier.weight`, `….bias`, and the masks `active_units_TT`
/// and `classifiers.T.active_units` below the layer's own name.
///
/// Two differences. An experience with several task labels is adapted to task by task, each head to
/// the classes of its own task; Avalanche grows every head to all classes and refuses to mask. And
/// [`forward`](Module::forward), without task labels, is the head of task 0, where Avalanche gives
/// back a dictionary of all heads.
#[derive(Clone, Debug)]
pub struct MultiHeadClassifier {
    name: String,
    in_features: usize,
    starting_out_features: usize,
    heads: Vec<TaskHead>,
    mask_value: Option<f32>,
    width: usize,
}

impl MultiHeadClassifier {
    /// Heads of `in_features` columns, each with `initial_out_features` units at first, masked with
    /// -1000.
    ///
    /// # Panics
    /// If the tape already has parameters of this name.
    #[track_caller]
    pub fn new(
        tape: &mut Tape,
        name: &str,
        in_features: usize,
        initial_out_features: usize,
    ) -> Self {
        let inner = format!("{}.classifier", head_name(name, 0));
        let first = Linear::new(tape, &inner, in_features, initial_out_features);
        Self::around(tape, name, first)
    }

    /// Heads of which the first one's linear layer exists already, under the name that it needs.
    #[track_caller]
    pub(super) fn around(tape: &mut Tape, name: &str, first: Linear) -> Self {
        let mut heads = MultiHeadClassifier {
            name: name.to_string(),
            in_features: first.inputs,
            starting_out_features: first.outputs,
            heads: Vec::new(),
            mask_value: Some(MASK_VALUE),
            width: first.outputs,
        };
        heads.add(tape, 0, first);
        heads
    }

    fn add(&mut self, tape: &mut Tape, task: u32, linear: Linear) {
        let mask = format!("{}.active_units_T{task}", self.name);
        let units = tape.mask(&mask, self.starting_out_features);
        let head = IncrementalClassifier::around(tape, &head_name(&self.name, task), linear);
        self.heads.push(TaskHead {
            task,
            head: head.masking(false),
            units,
        });
    }

    /// Turns masking on (with -1000) or off.
    pub fn masking(self, masking: bool) -> Self {
        MultiHeadClassifier {
            mask_value: masking.then_some(MASK_VALUE),
            ..self
        }
    }

    /// The tasks that have a head, in the order in which they came.
    pub fn tasks(&self) -> impl Iterator<Item = u32> {
        self.heads.iter().map(|head| head.task)
    }

    /// The logits of rows of one task, as wide as its head.
    ///
    /// # Panics
    /// If the task has no head.
    #[track_caller]
    pub fn forward_single_task(&self, tape: &mut Tape, x: Var, task_label: u32) -> Var {
        let Some(head) = self.heads.iter().find(|head| head.task == task_label) else {
            let known: Vec<String> = self.tasks().map(|task| task.to_string()).collect();
            panic!(
                "MultiHeadClassifier {}: task {task_label} has no head, only {}; adapt the model to \
                 an experience of that task first",
                self.name,
                known.join(", ")
            );
        };
        let logits = head.head.forward(tape, x);
        match self.mask_value {
            Some(value) => tape.mask_columns(logits, head.units, value),
            None => logits,
        }
    }
}

/// The name of a task's head, as Avalanche's `ModuleDict` gives it.
pub(super) fn head_name(name: &str, task: u32) -> String {
    format!("{name}.classifiers.{task}")
}

impl Module for MultiHeadClassifier {
    fn forward(&self, tape: &mut Tape, x: Var) -> Var {
        self.forward_single_task(tape, x, 0)
    }

    fn forward_tasks(&self, tape: &mut Tape, x: Var, task_labels: &[u32]) -> Var {
        let of_task = |tape: &mut Tape, task| {
            let rows = tape.take_rows(x, task_labels, task);
            let logits = self.forward_single_task(tape, rows, task);
            tape.put_rows(logits, task_labels, task, self.width)
        };
        let mut sum = None;
        for (row, &task) in task_labels.iter().enumerate() {
            if !task_labels[..row].contains(&task) {
                let logits = of_task(tape, task);
                sum = Some(sum.map_or(logits, |sum| tape.add(sum, logits)));
            }
        }
        sum.unwrap_or_else(|| of_task(tape, 0))
    }

    fn adapt(&mut self, tape: &mut Tape, adaptation: &Adaptation<'_>) {
        let Some(needed) = units_for(adaptation.classes) else {
            return;
        };
        self.width = self.width.max(needed);
        let task = adaptation.task_label;
        if self.tasks().all(|known| known != task) {
            let inner = format!("{}.classifier", head_name(&self.name, task));
            let linear = Linear::new(tape, &inner, self.in_features, self.starting_out_features);
            self.add(tape, task, linear);
        }
        let mut heads = self.heads.iter_mut();
        if let Some(head) = heads.find(|head| head.task == task) {
            head.head.adapt(tape, adaptation);
            if self.mask_value.is_some() {
                activate(tape, head.units, head.head.width(), adaptation);
            }
        }
    }

    fn n_classes(&self) -> Option<usize> {
        Some(self.width)
    }

    fn active_units(&self, tape: &Tape, task_label: u32) -> Option<Vec<bool>> {
        let head = self.heads.iter().find(|head| head.task == task_label);
        Some(match (head, self.mask_value) {
            (None, _) => Vec::new(),
            (Some(head), None) => vec![true; head.head.width()],
            (Some(head), Some(_)) => tape.mask_units(head.units).to_vec(),
        })
    }
}
