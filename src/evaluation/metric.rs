//! The traits of metrics and loggers.

use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricValue, State};

/// A metric: it hears of every point of the loop, and emits values at the points of its choice.
pub trait Metric: Send {
    /// Called at every point of the loop, after the plugins; emits into `out`.
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>);

    /// Whether the metric looks at nothing of a mini-batch of evaluation but its outcome: labels, task labels
    /// and their number, [`State::loss`], [`State::predictions`] and [`State::task_predictions`]. A device
    /// with a memory of its own keeps outcomes there until the experience is over or there are many of them,
    /// so that it need not be waited for; such a metric hears of
    /// [`AfterEvalIteration`](Event::AfterEvalIteration) only then, once for each mini-batch, in order. Other
    /// metrics hear of it at once, and wait for the device if they look at logits or losses.
    fn is_of_outcomes(&self) -> bool {
        false
    }

    /// Writes what a resumed run needs to go on as if nothing had happened.
    fn save(&self, out: &mut Snapshot) {
        let _ = out;
    }

    /// Takes up what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`crate::Error::Checkpoint`] if something is missing or of another type.
    fn load(&mut self, from: &Snapshot) -> Result<()> {
        let _ = from;
        Ok(())
    }
}

/// Something that shows or writes the values of metrics.
pub trait Logger: Send {
    /// Called at every point of the loop with the values emitted there, often none.
    ///
    /// # Errors
    /// What should end the run, such as a full disk.
    fn on(&mut self, event: Event, s: &State, values: &[MetricValue]) -> Result<()>;

    /// Writes what a resumed run needs, such as how long its files were.
    fn save(&self, out: &mut Snapshot) {
        let _ = out;
    }

    /// Takes up what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// As for [`Metric::load`].
    fn load(&mut self, from: &Snapshot) -> Result<()> {
        let _ = from;
        Ok(())
    }
}
