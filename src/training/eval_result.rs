//! What an evaluation finds.

use std::fmt;

/// The evaluation of one experience.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ExperienceEval {
    /// The experience's id.
    pub experience: usize,
    /// Samples evaluated.
    pub samples: usize,
    /// Samples whose largest logit (the first, if several are equal) is that of their label:
    /// class-incremental.
    pub correct: usize,
    /// The same with the logits restricted to the classes of the experience: task-incremental.
    pub correct_task: usize,
    /// Mean loss.
    pub loss: f64,
}

impl ExperienceEval {
    /// Class-incremental accuracy, 0 to 1; 0 without samples.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.samples.max(1) as f64
    }

    /// Task-incremental accuracy, 0 to 1; 0 without samples.
    pub fn accuracy_task(&self) -> f64 {
        self.correct_task as f64 / self.samples.max(1) as f64
    }
}

/// The evaluation of a stream. Printing it gives one line.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct EvalResult {
    /// Experience by experience, in the order of the stream.
    pub experiences: Vec<ExperienceEval>,
}

impl EvalResult {
    /// Samples evaluated.
    pub fn samples(&self) -> usize {
        self.experiences.iter().map(|e| e.samples).sum()
    }

    /// Class-incremental accuracy over all samples of the stream (Avalanche's `Top1_Acc_Stream`).
    pub fn accuracy(&self) -> f64 {
        let correct: usize = self.experiences.iter().map(|e| e.correct).sum();
        correct as f64 / self.samples().max(1) as f64
    }

    /// Task-incremental accuracy over all samples of the stream.
    pub fn accuracy_task(&self) -> f64 {
        let correct: usize = self.experiences.iter().map(|e| e.correct_task).sum();
        correct as f64 / self.samples().max(1) as f64
    }

    /// Mean loss over all samples of the stream (Avalanche's `Loss_Stream`).
    pub fn loss(&self) -> f64 {
        let sum: f64 = self
            .experiences
            .iter()
            .map(|e| e.loss * e.samples as f64)
            .sum();
        sum / self.samples().max(1) as f64
    }
}

impl fmt::Display for EvalResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accuracy {:.4}, loss {:.4}; by experience:",
            self.accuracy(),
            self.loss()
        )?;
        self.experiences
            .iter()
            .try_for_each(|e| write!(f, " {:.4}", e.accuracy()))
    }
}
