//! Ending a run in good order on Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Result;
use crate::training::{Plugin, State};

/// Stops the training after the step in which the flag was raised, so that what has been learned
/// until then can be written.
pub struct StopOnInterrupt(pub Arc<AtomicBool>);

impl Plugin for StopOnInterrupt {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            s.stop_training();
        }
        Ok(())
    }
}
