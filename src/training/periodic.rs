//! When training is interrupted by an evaluation.

use serde::{Deserialize, Serialize};

use crate::benchmarks::Experience;
use crate::template::Clock;

/// What `eval_every` counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PevalMode {
    /// Experiences: after the first, and from then on after every `eval_every`-th. (In Avalanche
    /// the value of `eval_every` has no influence in this mode.)
    Experience,
    /// Epochs of an experience.
    #[default]
    Epoch,
    /// Iterations of an experience.
    Iteration,
}

/// Lists of experiences, one for each stream name, in the order of first appearance.
#[derive(Default)]
pub(super) struct Streams(Vec<Vec<Experience>>);

impl Streams {
    pub fn new(lists: impl IntoIterator<Item = Vec<Experience>>) -> Self {
        let mut groups: Vec<Vec<Experience>> = Vec::new();
        for experience in lists.into_iter().flatten() {
            let name = experience.stream_name();
            match groups.iter_mut().find(|g| g[0].stream_name() == name) {
                Some(group) => group.push(experience),
                None => groups.push(vec![experience]),
            }
        }
        Streams(groups)
    }

    pub fn get(&self) -> Vec<Vec<Experience>> {
        self.0.clone()
    }
}

/// Avalanche's `PeriodicEval`. With `every` set there is one evaluation before training. After that
/// `k > 0` evaluates after the epochs (or iterations, or experiences) 0, k, 2k, ... counted within
/// the experience, and once more after each experience unless its last epoch was evaluated; 0 only
/// after each experience.
///
/// Avalanche decides beforehand whether the last epoch will be evaluated, so that a training that
/// is stopped early may end without an evaluation; here it is always evaluated.
#[derive(Default)]
pub(super) struct PeriodicEval {
    pub every: Option<usize>,
    pub mode: PevalMode,
    pub streams: Streams,
    /// Whether the epoch that ended last was evaluated.
    pub epoch_evaluated: bool,
}

impl PeriodicEval {
    fn due(&self, mode: PevalMode, index: u64) -> bool {
        let every = self.every.unwrap_or(0) as u64;
        self.mode == mode && every > 0 && index.is_multiple_of(every)
    }

    pub fn after_iteration(&self, clock: &Clock) -> bool {
        self.due(PevalMode::Iteration, clock.train_exp_iterations)
    }

    pub fn after_epoch(&mut self, clock: &Clock) -> bool {
        self.epoch_evaluated = self.due(PevalMode::Epoch, clock.train_exp_epochs);
        self.epoch_evaluated
    }

    /// `requested`: somebody has changed the model since the last epoch.
    pub fn after_experience(&self, clock: &Clock, requested: bool) -> bool {
        match (self.every, self.mode) {
            (None, _) => false,
            (Some(_), _) if requested => true,
            (Some(0), _) => true,
            (_, PevalMode::Experience) => self.due(PevalMode::Experience, clock.train_exp_counter),
            (_, PevalMode::Epoch | PevalMode::Iteration) => !self.epoch_evaluated,
        }
    }
}
