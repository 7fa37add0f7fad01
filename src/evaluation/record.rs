//! Who was how accurate after which training: what forgetting, transfer and the accuracy matrix are
//! computed from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Mean;
use super::accuracy::accuracy;
use crate::template::{Event, State};

/// The accuracies of one stream's experiences after one training; a later evaluation made before the
/// next training overwrites an earlier one.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Row {
    /// The id of the experience trained on (or of what it is a piece of); `None` before any training.
    pub trained: Option<usize>,
    /// How many trainings there have been.
    pub trainings: usize,
    /// The ids of all experiences trained on until then.
    pub seen: BTreeSet<usize>,
    /// Accuracy by the id of the evaluated experience.
    pub accuracies: BTreeMap<usize, f64>,
}

/// The accuracies of a run. Streams are kept apart by name, so that an evaluation on training data
/// does not mix with one on test data; in Avalanche it does, because only ids are compared.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    streams: BTreeMap<String, Vec<Row>>,
    trained: Option<usize>,
    trainings: usize,
    seen: BTreeSet<usize>,
    current: Mean,
    evaluated: BTreeSet<usize>,
}

impl Record {
    /// Takes in what the event tells; to be called at every event.
    pub fn on(&mut self, event: Event, s: &State) {
        match event {
            Event::BeforeTrainingExp => {
                // The pieces of an online stream are one training of what they are pieces of.
                let piece = s
                    .experience
                    .as_ref()
                    .and_then(|e| e.sub_experience_for_logging());
                let goes_on = piece.is_some_and(|piece| !piece.is_first_subexp());
                let before = self.trained;
                self.trained = s.experience.as_ref().map(|e| e.origin_id());
                if !(goes_on && self.trained == before) {
                    self.trainings += 1;
                }
                self.seen.extend(self.trained);
            }
            Event::BeforeEval => self.evaluated.clear(),
            Event::BeforeEvalExp => self.current = Mean::default(),
            Event::AfterEvalIteration => {
                let (value, weight) = accuracy(s);
                self.current.add(value, weight);
            }
            Event::AfterEvalExp => self.note(s),
            _ => {}
        }
    }

    /// The experience evaluated has its accuracy; one without samples has none.
    fn note(&mut self, s: &State) {
        let (Some(experience), Some(accuracy)) = (&s.experience, self.current.get()) else {
            return;
        };
        let id = experience.current_experience();
        let name = experience.stream_name().to_string();
        let rows = self.streams.entry(name).or_default();
        if rows
            .last()
            .is_none_or(|row| row.trainings != self.trainings)
        {
            rows.push(Row {
                trained: self.trained,
                trainings: self.trainings,
                seen: self.seen.clone(),
                accuracies: BTreeMap::new(),
            });
        }
        if let Some(row) = rows.last_mut() {
            row.accuracies.insert(id, accuracy);
        }
        self.evaluated.insert(id);
    }

    /// The experience trained on last.
    pub fn trained(&self) -> Option<usize> {
        self.trained
    }

    /// The ids evaluated in the current call of `eval` so far, in ascending order.
    pub fn evaluated(&self) -> impl Iterator<Item = usize> {
        self.evaluated.iter().copied()
    }

    /// The rows of the stream being evaluated, oldest first.
    pub fn rows(&self, s: &State) -> &[Row] {
        let name = s.experience.as_ref().map_or("", |e| e.stream_name());
        self.streams.get(name).map_or(&[], Vec::as_slice)
    }
}
