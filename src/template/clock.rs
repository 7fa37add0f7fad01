//! Counters of the training loop.

use serde::{Deserialize, Serialize};

/// How far a strategy has come: Avalanche's `Clock`. It ticks after all plugins, so a plugin sees
/// the index of what has just finished, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Clock {
    /// Training iterations in all.
    pub train_iterations: u64,
    /// Experiences trained.
    pub train_exp_counter: u64,
    /// Epochs of the current experience.
    pub train_exp_epochs: u64,
    /// Training iterations of the current experience.
    pub train_exp_iterations: u64,
    /// Training iterations of the current epoch.
    pub train_epoch_iterations: u64,
    /// Training and evaluation iterations in all.
    pub total_iterations: u64,
}

impl Clock {
    pub(crate) fn start_experience(&mut self) {
        self.train_exp_epochs = 0;
        self.train_exp_iterations = 0;
    }

    pub(crate) fn start_epoch(&mut self) {
        self.train_epoch_iterations = 0;
    }

    pub(crate) fn tick_iteration(&mut self) {
        self.train_iterations += 1;
        self.train_exp_iterations += 1;
        self.train_epoch_iterations += 1;
        self.total_iterations += 1;
    }
}
