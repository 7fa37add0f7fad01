//! What is particular to a strategy.

use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::Result;
use crate::snapshot::Snapshot;
use crate::tape::Var;
use crate::template::State;

/// The part of a strategy that differs from fine-tuning. The defaults are fine-tuning.
pub trait Method: Send {
    /// The name, for messages and run records.
    fn name(&self) -> &'static str;

    /// Whether all experiences of one call of `train` are trained on together.
    fn joins_experiences(&self) -> bool {
        false
    }

    /// The data to train on for `experience`.
    ///
    /// Called a second time when a run is resumed in the middle of the experience, when
    /// [`before_experience`](Self::before_experience) is not.
    fn train_dataset(&self, experience: &Experience) -> ClassificationDataset {
        experience.dataset().clone()
    }

    /// Before the experience's data is prepared: build the replay loader.
    fn before_experience(&mut self, state: &mut State) {
        let _ = state;
    }

    /// After the plugins' `before_forward`: add replay rows to the mini-batch.
    fn add_replay(&mut self, state: &mut State) {
        let _ = state;
    }

    /// The loss of the mini-batch, one number on the tape; its terms go into [`State::set_loss`].
    fn loss(&mut self, state: &mut State, logits: Var) -> Var {
        state.criterion_loss(logits)
    }

    /// After the step of the optimizer, before the plugins' `after_update`: update the buffer.
    fn after_iteration(&mut self, state: &mut State) {
        let _ = state;
    }

    /// What an evaluation takes as the model's output for the mini-batch, given the logits.
    fn eval_output(&mut self, state: &mut State, logits: Var) -> Var {
        let _ = state;
        logits
    }

    /// After the last epoch, before the plugins' `after_training_exp`: update the buffer.
    ///
    /// # Errors
    /// When the buffer cannot take the data.
    fn after_experience(&mut self, state: &mut State) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// Writes what a resumed run needs to go on as if nothing had happened.
    fn save(&self, out: &mut Snapshot) {
        let _ = out;
    }

    /// Takes up what [`save`](Self::save) wrote. `trained` are the experiences trained on so far, the
    /// running one included.
    ///
    /// # Errors
    /// [`crate::Error::Checkpoint`] if something is missing or of another type.
    fn load(&mut self, from: &Snapshot, trained: &[Experience]) -> Result<()> {
        let _ = (from, trained);
        Ok(())
    }
}
