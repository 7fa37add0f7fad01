//! Telling the model of experiences, and of the same ones again when a run is resumed.

use super::State;
use crate::benchmarks::Experience;
use crate::nn::Adaptation;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the model was told of an experience, see [`Adaptation`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Adapted {
    classes: Vec<u32>,
    task_label: u32,
    training: bool,
}

impl State {
    /// Lets the model make room for what `experience` brings, task by task (Avalanche's
    /// `model_adaptation`). Parameters that change lose their momentum, all others keep theirs.
    pub(crate) fn adapt_model(&mut self, experience: &Experience) {
        let dataset = experience.dataset();
        let mut tasks: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for i in 0..dataset.len() {
            let classes = tasks.entry(dataset.task_label(i)).or_default();
            classes.insert(dataset.target(i));
        }
        for (task_label, classes) in tasks {
            self.adapt(Adapted {
                classes: classes.into_iter().collect(),
                task_label,
                training: self.is_training,
            });
        }
    }

    /// Gives a newly built model the shape that it had when these adaptations had been made.
    pub(super) fn adapt_again(&mut self, adaptations: Vec<Adapted>) {
        adaptations.into_iter().for_each(|then| self.adapt(then));
    }

    fn adapt(&mut self, adapted: Adapted) {
        let adaptation = Adaptation {
            classes: &adapted.classes,
            task_label: adapted.task_label,
            training: adapted.training,
        };
        self.model.adapt(&mut self.tape, &adaptation);
        // The same a second time changes nothing, so the list stays as short as the stream.
        if !self.adaptations.contains(&adapted) {
            self.adaptations.push(adapted);
        }
    }
}
