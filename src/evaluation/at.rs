//! Over which stretch of the loop a metric runs.

use serde::{Deserialize, Serialize};

use crate::template::{Event, State};

/// The stretch of the loop that a metric is taken over (the flags of Avalanche's helper functions,
/// such as `accuracy_metrics(epoch=True)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum At {
    /// Each training mini-batch.
    Minibatch,
    /// Each training epoch.
    Epoch,
    /// Each training epoch, with a value after every iteration.
    EpochRunning,
    /// Each evaluated experience.
    Experience,
    /// Each call of `eval`.
    Stream,
    /// Each call of `eval`, over the experiences up to the one trained on last (by id; the first
    /// experience always counts, as in Avalanche).
    TrainedExperience,
}

impl At {
    /// Whether the stretch begins at `event`.
    pub fn begins(self, event: Event) -> bool {
        event
            == match self {
                At::Minibatch => Event::BeforeTrainingIteration,
                At::Epoch | At::EpochRunning => Event::BeforeTrainingEpoch,
                At::Experience => Event::BeforeEvalExp,
                At::Stream | At::TrainedExperience => Event::BeforeEval,
            }
    }

    /// Whether a mini-batch of the stretch ends with `event`.
    pub fn counts(self, event: Event) -> bool {
        event
            == match self.in_training() {
                true => Event::AfterTrainingIteration,
                false => Event::AfterEvalIteration,
            }
    }

    /// Whether the value is emitted at `event`.
    pub fn emits(self, event: Event) -> bool {
        event
            == match self {
                At::Minibatch | At::EpochRunning => Event::AfterTrainingIteration,
                At::Epoch => Event::AfterTrainingEpoch,
                At::Experience => Event::AfterEvalExp,
                At::Stream | At::TrainedExperience => Event::AfterEval,
            }
    }

    /// Whether the value is one experience's own.
    pub fn of_experience(self) -> bool {
        self == At::Experience
    }

    /// Whether the stretch lies in training rather than in evaluation.
    pub fn in_training(self) -> bool {
        matches!(self, At::Minibatch | At::Epoch | At::EpochRunning)
    }

    /// The name of a metric over this stretch in Avalanche's way, such as `Top1_Acc_MB` or
    /// `Top1_RunningAcc_Epoch` of `("Top1_", "Acc")`.
    pub fn named(self, prefix: &str, base: &str) -> String {
        let (running, label) = match self {
            At::Minibatch => ("", "MB"),
            At::Epoch => ("", "Epoch"),
            At::EpochRunning => ("Running", "Epoch"),
            At::Experience => ("", "Exp"),
            At::Stream => ("", "Stream"),
            At::TrainedExperience => ("", "On_Trained_Experiences"),
        };
        format!("{prefix}{running}{base}_{label}")
    }
}

/// What an event means for a stretch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The stretch begins: forget what was gathered.
    pub begins: bool,
    /// The mini-batch in the state belongs to the stretch.
    pub counts: bool,
    /// The value is due.
    pub emits: bool,
}

/// Follows the loop for a metric over an [`At`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Span {
    at: At,
    last_trained: usize,
}

impl Span {
    /// The stretch `at` of a run that has not begun.
    pub fn new(at: At) -> Self {
        Span {
            at,
            last_trained: 0,
        }
    }

    /// The stretch.
    pub fn at(&self) -> At {
        self.at
    }

    /// What `event` means; to be called at every event, beginning, counting and emitting in this
    /// order.
    pub fn on(&mut self, event: Event, s: &State) -> Now {
        let id = s.experience.as_ref().map_or(0, |e| e.current_experience());
        if event == Event::AfterTrainingExp {
            self.last_trained = s.experience.as_ref().map_or(0, |e| e.origin_id());
        }
        let trained = self.at != At::TrainedExperience || id <= self.last_trained;
        Now {
            begins: self.at.begins(event),
            counts: self.at.counts(event) && trained,
            emits: self.at.emits(event),
        }
    }
}

/// Checks that a metric is asked for over stretches that it has.
#[track_caller]
pub(super) fn only(metric: &str, at: &[At], may: &[At]) {
    if let Some(wrong) = at.iter().find(|at| !may.contains(at)) {
        panic!("{metric}: expected stretches among {may:?}, found {wrong:?}");
    }
}
