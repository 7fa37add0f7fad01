//! Callbacks.

use super::State;
use crate::benchmarks::Experience;
use crate::error::Result;
use crate::snapshot::Snapshot;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $variant:ident,)*) => {
        /// A point of the loop at which plugins are called, in the order of the loop.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Event {
            $($(#[$doc])* $variant,)*
        }

        /// Code that runs at the points of the loop it cares about: logging, schedules, penalties.
        ///
        /// Plugins are called in the order in which they were added. Returning an error ends
        /// `train` or `eval` with it. The points are those of Avalanche's `SupervisedPlugin`.
        ///
        /// ```
        /// use unforget::training::{Plugin, State};
        ///
        /// /// Halves the learning rate after each experience.
        /// struct Halve;
        ///
        /// impl Plugin for Halve {
        ///     fn after_training_exp(&mut self, s: &mut State) -> unforget::Result<()> {
        ///         s.optimizer.lr /= 2.0;
        ///         Ok(())
        ///     }
        /// }
        /// ```
        #[expect(unused_variables, reason = "each callback does nothing unless it is implemented")]
        pub trait Plugin: Send {
            $($(#[$doc])*
            ///
            /// # Errors
            /// Whatever should end the run.
            fn $name(&mut self, s: &mut State) -> Result<()> {
                Ok(())
            })*

            /// Writes what a resumed run needs to go on as if nothing had happened.
            fn save(&self, out: &mut Snapshot) {}

            /// Takes up what [`save`](Self::save) wrote. `trained` are the experiences trained on so
            /// far, the running one included.
            ///
            /// # Errors
            /// [`crate::Error::Checkpoint`] if something is missing or of another type.
            fn load(&mut self, from: &Snapshot, trained: &[Experience]) -> Result<()> {
                Ok(())
            }
        }

        pub(crate) fn call(plugin: &mut dyn Plugin, event: Event, s: &mut State) -> Result<()> {
            match event {
                $(Event::$variant => plugin.$name(s),)*
            }
        }
    };
}

events! {
    /// Once in each call of `train`, before anything else.
    before_training = BeforeTraining,
    /// Before the experience's data is prepared.
    before_train_dataset_adaptation = BeforeTrainDatasetAdaptation,
    /// After; `adapted_dataset` may be replaced here.
    after_train_dataset_adaptation = AfterTrainDatasetAdaptation,
    /// Before the epochs of an experience.
    before_training_exp = BeforeTrainingExp,
    /// Before an epoch.
    before_training_epoch = BeforeTrainingEpoch,
    /// With a mini-batch of current data in `mb_x` and `mb_y`.
    before_training_iteration = BeforeTrainingIteration,
    /// Before replay is added to the mini-batch and the forward pass runs.
    before_forward = BeforeForward,
    /// With the logits in `mb_output`; the mini-batch now holds the replay rows.
    after_forward = AfterForward,
    /// With the loss in `loss_var`, to which a term may be added; see also [`State::add_penalty`].
    before_backward = BeforeBackward,
    /// With the gradients.
    after_backward = AfterBackward,
    /// Before the step of the optimizer.
    before_update = BeforeUpdate,
    /// After the step of the optimizer.
    after_update = AfterUpdate,
    /// After an iteration, before the clock ticks.
    after_training_iteration = AfterTrainingIteration,
    /// After an epoch.
    after_training_epoch = AfterTrainingEpoch,
    /// After the last epoch of an experience and its evaluation, before the method looks at the
    /// model (DER stores its logits): the place to put another model in its place. Avalanche has no
    /// such point.
    after_training_epochs = AfterTrainingEpochs,
    /// After an experience; the replay buffer has been updated.
    after_training_exp = AfterTrainingExp,
    /// Once in each call of `train`, after everything else.
    after_training = AfterTraining,
    /// Once in each call of `eval`, before anything else.
    before_eval = BeforeEval,
    /// Before the experience's data is prepared.
    before_eval_dataset_adaptation = BeforeEvalDatasetAdaptation,
    /// After; `adapted_dataset` may be replaced here.
    after_eval_dataset_adaptation = AfterEvalDatasetAdaptation,
    /// Before the evaluation of an experience.
    before_eval_exp = BeforeEvalExp,
    /// With a mini-batch.
    before_eval_iteration = BeforeEvalIteration,
    /// Before the forward pass.
    before_eval_forward = BeforeEvalForward,
    /// With the logits in `mb_output`.
    after_eval_forward = AfterEvalForward,
    /// With the loss.
    after_eval_iteration = AfterEvalIteration,
    /// After the evaluation of an experience.
    after_eval_exp = AfterEvalExp,
    /// Once in each call of `eval`, after everything else.
    after_eval = AfterEval,
}
