//! Whether the label is among the k largest logits.

use std::collections::BTreeMap;

use super::accuracy::for_each_row;
use super::name::{emit, metric_name, stream_metric_name};
use super::{At, Mean, Metric, Span};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Avalanche's `topk_acc_metrics`: the share of samples whose label is among the `k` largest logits;
/// of equal logits the first count as larger. A label that has no logit, or NaN for one, is never among
/// them, whatever `k` is. With `k` of at least the number of logits every other label is, so heads that
/// have yet to grow can be measured too (Avalanche fails if `k` is above the number of classes).
///
/// Names: `Topk_{k}_Acc_MB`, `Topk_{k}_Acc_Epoch`, `Topk_{k}_RunningAcc_Epoch` (Avalanche gives it
/// the name of the value per epoch), `Topk_{k}_Acc_Exp`, `Topk_{k}_Acc_Stream`,
/// `Topk_{k}_Acc_On_Trained_Experiences`. Over several tasks there is a value for each of them, with the task
/// at the end of its name, as in Avalanche, and one over all samples, without a task.
pub fn topk_acc_metrics(k: usize, at: &[At]) -> Vec<Box<dyn Metric>> {
    (at.iter())
        .map(|&at| {
            Box::new(TopK {
                name: at.named(&format!("Topk_{k}_"), "Acc"),
                k,
                span: Span::new(at),
                tasks: BTreeMap::new(),
            }) as Box<dyn Metric>
        })
        .collect()
}

struct TopK {
    name: String,
    k: usize,
    span: Span,
    /// By task label. One that was met before stays, with the mean of nothing, so that meeting it again
    /// takes no memory.
    tasks: BTreeMap<u32, Mean>,
}

impl Metric for TopK {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if now.begins {
            self.tasks
                .values_mut()
                .for_each(|mean| *mean = Mean::default());
        }
        if now.counts {
            let mut tasks = s.mb_task_id.iter();
            for_each_row(s, |row, label| {
                let hit = rank(row, label).is_some_and(|rank| rank < self.k);
                let task = tasks.next().copied().unwrap_or(0);
                (self.tasks.entry(task).or_default()).add(f64::from(u8::from(hit)), 1.0);
            });
        }
        if now.emits {
            let mut all = Mean::default();
            let met = || self.tasks.iter().filter(|(_, mean)| mean.get().is_some());
            let several = met().count() > 1;
            for (task, mean) in met() {
                all.merge(*mean);
                if several {
                    let name = format!("{}/Task{task:03}", stream_metric_name(&self.name, s));
                    emit(out, s, name, MetricData::Scalar(mean.value()));
                }
            }
            let name = match several {
                true => stream_metric_name(&self.name, s),
                false => metric_name(&self.name, s, self.span.at().of_experience()),
            };
            emit(out, s, name, MetricData::Scalar(all.value()));
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
        out.put("tasks", &self.tasks);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        self.tasks = from.get("tasks")?;
        Ok(())
    }
}

/// How many logits come before the label's in descending order, equal ones in the order of columns;
/// none for a label without a logit, or with NaN.
fn rank(row: &[f32], label: u32) -> Option<usize> {
    let label = label as usize;
    let own = row.get(label).copied().filter(|own| !own.is_nan())?;
    let before = |(column, &value): (usize, &f32)| value > own || (value == own && column < label);
    Some(row.iter().enumerate().filter(|&x| before(x)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_are_ranked_by_column() {
        let row = [1.0, 3.0, 3.0, 0.0];
        assert_eq!(
            [0, 1, 2, 3].map(|label| rank(&row, label)),
            [2, 0, 1, 3].map(Some)
        );
    }

    #[test]
    fn a_label_without_a_number_has_no_rank() {
        assert_eq!(rank(&[1.0, 3.0], 2), None);
        assert_eq!(rank(&[1.0, f32::NAN], 1), None);
        assert_eq!(rank(&[1.0, f32::NAN], 0), Some(0));
    }
}
