//! The loop of evaluation.

use super::{EvalResult, ExperienceEval, Strategy};
use crate::benchmarks::Experience;
use crate::data::{ClassificationDataset, Group};
use crate::error::Result;
use crate::tape::Mode;
use crate::template::{Event, State};

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
        let (n, size) = (dataset.len(), self.state.eval_mb_size);
        let mut ahead =
            self.state
                .gather_ahead(dataset, Group::Eval, dataset.len().div_ceil(size))?;
        let mut sums = ExperienceEval {
            experience: experience.current_experience(),
            samples: n,
            correct: 0,
            correct_task: 0,
            loss: 0.0,
        };
        self.state.begin_outcomes();
        for start in (0..n).step_by(size) {
            self.state.clear_batch();
            (self.state).append_in_order(dataset, start, size, ahead.as_mut());
            self.fire(Event::BeforeEvalIteration)?;
            self.fire(Event::BeforeEvalForward)?;
            let logits = self.state.forward(Mode::Eval);
            let logits = self.method.eval_output(&mut self.state, logits);
            self.fire(Event::AfterEvalForward)?;
            let full = self.state.note_outcome(logits);
            self.fire(Event::AfterEvalIteration)?;
            self.state.clock.total_iterations += 1;
            if !self.state.tape.has_own_memory() {
                sums.add(&self.state);
            } else if full {
                self.count_outcomes(&mut sums)?;
            }
        }
        self.count_outcomes(&mut sums)?;
        sums.loss /= n.max(1) as f64;
        Ok(sums)
    }

    /// Counts what was left on a device.
    fn count_outcomes(&mut self, sums: &mut ExperienceEval) -> Result<()> {
        let evaluator = &mut self.evaluator;
        self.state.show_outcomes(|state| {
            sums.add(state);
            evaluator.count_outcome(state)
        })
    }
}

impl ExperienceEval {
    /// Takes in the mini-batch; `loss` is the sum over samples meanwhile.
    fn add(&mut self, state: &State) {
        let hits = |guesses: &mut dyn Iterator<Item = Option<u32>>| {
            let right = |(guess, &label): (Option<u32>, &u32)| guess == Some(label);
            guesses.zip(&state.mb_y).filter(|&pair| right(pair)).count()
        };
        self.correct += hits(&mut state.predictions());
        self.correct_task += hits(&mut state.task_predictions());
        self.loss += f64::from(state.loss().total) * state.mb_y.len() as f64;
    }
}
