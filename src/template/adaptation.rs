//! What the model is told of the experiences.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::State;
use crate::benchmarks::Experience;
use crate::nn::{Adaptation, Module};
use crate::tape::Tape;

/// What the model was told of an experience.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    classes: Vec<u32>,
    task_label: u32,
    training: bool,
}

impl Seen {
    pub fn adapt(&self, model: &mut dyn Module, tape: &mut Tape) {
        let adaptation = Adaptation {
            classes: &self.classes,
            task_label: self.task_label,
            training: self.training,
        };
        model.adapt(tape, &adaptation);
    }
}

impl State {
    /// Lets the model make room for what `experience` brings, task by task (Avalanche's
    /// `model_adaptation`). Parameters that change lose their momentum, all others keep theirs.
    pub(crate) fn adapt_model(&mut self, experience: &Experience) {
        let dataset = experience.dataset();
        let mut tasks: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let mut last = None;
        for i in 0..dataset.len() {
            let label = (dataset.task_label(i), dataset.target(i));
            // Data is mostly grouped by class.
            if last != Some(label) {
                tasks.entry(label.0).or_default().insert(label.1);
                last = Some(label);
            }
        }
        for (task_label, classes) in tasks {
            let seen = Seen {
                classes: classes.into_iter().collect(),
                task_label,
                training: self.is_training,
            };
            seen.adapt(self.model.as_mut(), &mut self.tape);
            if !self.seen.contains(&seen) {
                self.seen.push(seen);
            }
        }
    }
}
