//! The loop of evaluation.

use super::{EvalResult, ExperienceEval, Strategy};
use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::Result;
use crate::evaluation::argmax;
use crate::tape::Mode;
use crate::template::Event;

impl Strategy {
    /// Evaluates, and puts back what an evaluation in the middle of training displaces. The
    /// mini-batch is not put back, as in Avalanche.
    pub(super) fn eval_list(&mut self, list: Vec<Experience>) -> Result<EvalResult> {
        let s = &mut self.state;
        let experience = s.experience.take();
        let dataset = s.adapted_dataset.take();
        let was_training = std::mem::replace(&mut s.is_training, false);
        s.current_eval_stream = list;
        let result = self.eval_current_stream();
        let s = &mut self.state;
        s.experience = experience;
        s.adapted_dataset = dataset;
        s.is_training = was_training;
        s.current_eval_stream.clear();
        s.clear_batch();
        result
    }

    fn eval_current_stream(&mut self) -> Result<EvalResult> {
        self.fire(Event::BeforeEval)?;
        let mut result = EvalResult::default();
        for i in 0..self.state.current_eval_stream.len() {
            let experience = self.state.current_eval_stream[i].clone();
            self.state.experience = Some(experience.clone());
            self.fire(Event::BeforeEvalDatasetAdaptation)?;
            self.state.adapted_dataset = Some(experience.dataset().clone());
            self.fire(Event::AfterEvalDatasetAdaptation)?;
            self.state.adapt_model(&experience);
            let dataset = self.adapted();
            self.check_labels(&dataset)?;
            self.fire(Event::BeforeEvalExp)?;
            result
                .experiences
                .push(self.eval_experience(&experience, &dataset)?);
            self.fire(Event::AfterEvalExp)?;
        }
        self.fire(Event::AfterEval)?;
        Ok(result)
    }

    fn eval_experience(
        &mut self,
        experience: &Experience,
        dataset: &ClassificationDataset,
    ) -> Result<ExperienceEval> {
        // The seed that PyTorch's loader draws for its workers.
        self.state.tape.generator().random_i64();
        let classes = experience.classes_in_this_experience();
        let (n, size) = (dataset.len(), self.state.eval_mb_size);
        let mut ahead = self.state.ahead_in_order(dataset, size)?;
        let (mut correct, mut correct_task, mut loss_sum) = (0, 0, 0.0);
        for start in (0..n).step_by(size) {
            let end = n.min(start + size);
            self.state.clear_batch();
            (self.state).append_in_order(dataset, start, size, ahead.as_mut());
            self.fire(Event::BeforeEvalIteration)?;
            self.fire(Event::BeforeEvalForward)?;
            let logits = self.state.forward(Mode::Eval);
            let logits = self.method.eval_output(&mut self.state, logits);
            self.fire(Event::AfterEvalForward)?;
            self.state.criterion_loss(logits);
            self.fire(Event::AfterEvalIteration)?;
            self.state.clock.total_iterations += 1;
            loss_sum += f64::from(self.state.loss.total) * (end - start) as f64;
            let width = self.state.tape.shape(logits).dim(1);
            for (row, &label) in self
                .state
                .logits()
                .chunks_exact(width)
                .zip(&self.state.mb_y)
            {
                correct += usize::from(argmax(row, 0..width as u32) == Some(label));
                correct_task += usize::from(argmax(row, classes.iter().copied()) == Some(label));
            }
        }
        Ok(ExperienceEval {
            experience: experience.current_experience(),
            samples: n,
            correct,
            correct_task,
            loss: loss_sum / n.max(1) as f64,
        })
    }
}
