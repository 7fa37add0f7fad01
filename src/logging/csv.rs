//! Tables: Avalanche's two CSV files, and one with every number.

use std::borrow::Cow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file::LogFile;
use super::text::four_decimals;
use crate::Result;
use crate::evaluation::Logger;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

const TRAINING: &str = "training_exp,epoch,training_accuracy,val_accuracy,training_loss,val_loss\n";
const EVAL: &str = "eval_exp,training_exp,eval_accuracy,eval_loss,forgetting\n";
const METRICS: &str = "x,name,value\n";

/// Avalanche's `CSVLogger`, with a third table.
///
/// | file | a row for each | columns |
/// |---|---|---|
/// | `training_results.csv` | training epoch | `training_exp,epoch,training_accuracy,val_accuracy,training_loss,val_loss` |
/// | `eval_results.csv` | experience evaluated outside of `train` | `eval_exp,training_exp,eval_accuracy,eval_loss,forgetting` |
/// | `metrics.csv` (not in Avalanche) | number that a metric emits | `x,name,value` |
///
/// The first two have four decimals, `0` for what was not measured and `None` before the first
/// training. They need the accuracy and loss of epochs and experiences, and the forgetting of
/// experiences. As in Avalanche, `val_*` come from the experience evaluated last within `train`,
/// before the row's own epoch is evaluated. `metrics.csv` has all digits, and `x` counts training
/// iterations; tensors, pictures and serialised data are left out.
///
/// A new run replaces the files, a resumed one continues them where the checkpoint was written
/// (Avalanche begins them anew).
///
/// ```
/// use unforget::evaluation::EvaluationPlugin;
/// use unforget::logging::CsvLogger;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("csvlogs");
/// let evaluator = EvaluationPlugin::default().logger(CsvLogger::new(path)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CsvLogger {
    training: LogFile,
    eval: LogFile,
    metrics: LogFile,
    state: Progress,
    rows: String,
}

/// What the rows to come depend on.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Progress {
    training_exp: Option<usize>,
    in_train: bool,
    val_accuracy: Option<f64>,
    val_loss: Option<f64>,
}

impl CsvLogger {
    /// Writes into the folder `log_folder`, which is made if there is none. (Avalanche's default
    /// is `csvlogs`.)
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the folder or a file cannot be made.
    pub fn new(log_folder: impl AsRef<Path>) -> Result<Self> {
        let file = |name| LogFile::open(log_folder.as_ref().join(name));
        Ok(CsvLogger {
            training: file("training_results.csv")?,
            eval: file("eval_results.csv")?,
            metrics: file("metrics.csv")?,
            state: Progress::default(),
            rows: String::new(),
        })
    }

    /// Writes the headers of tables that have none yet.
    fn headers(&mut self) -> Result<()> {
        append(&mut self.training, TRAINING, "")?;
        append(&mut self.eval, EVAL, "")?;
        append(&mut self.metrics, METRICS, "")
    }

    fn long(&mut self, values: &[MetricValue]) -> Result<()> {
        self.rows.clear();
        for MetricValue { name, value, x } in values {
            let number = match value {
                MetricData::Scalar(value) if value.is_nan() => "nan".to_string(),
                MetricData::Scalar(value) => format!("{value:?}"),
                MetricData::Integer(value) => value.to_string(),
                MetricData::Tensor(_) | MetricData::Image(_) | MetricData::Bytes(_) => continue,
            };
            self.rows
                .push_str(&format!("{x},{},{number}\n", quoted(name)));
        }
        append(&mut self.metrics, METRICS, &self.rows)
    }

    fn epoch(&mut self, s: &State, values: &[MetricValue]) -> Result<()> {
        let last = |name| find(values, name, "train_stream");
        let row = format!(
            "{},{},{},{},{},{}\n",
            id(self.state.training_exp),
            s.clock.train_exp_epochs,
            number(last("Top1_Acc_Epoch")),
            number(self.state.val_accuracy),
            number(last("Loss_Epoch")),
            number(self.state.val_loss),
        );
        append(&mut self.training, TRAINING, &row)
    }

    fn experience(&mut self, s: &State, values: &[MetricValue]) -> Result<()> {
        let (accuracy, loss) = (
            find(values, "Top1_Acc_Exp", ""),
            find(values, "Loss_Exp", ""),
        );
        if self.state.in_train {
            self.state.val_accuracy = accuracy.or(self.state.val_accuracy);
            self.state.val_loss = loss.or(self.state.val_loss);
            return Ok(());
        }
        let row = format!(
            "{},{},{},{},{}\n",
            id(s.experience.as_ref().map(|e| e.current_experience())),
            id(self.state.training_exp),
            number(accuracy),
            number(loss),
            number(find(values, "ExperienceForgetting", "")),
        );
        append(&mut self.eval, EVAL, &row)
    }
}

impl Logger for CsvLogger {
    fn on(&mut self, event: Event, s: &State, values: &[MetricValue]) -> Result<()> {
        if !values.is_empty() {
            self.long(values)?;
        }
        match event {
            Event::BeforeTraining => {
                self.state.in_train = true;
                self.headers()
            }
            Event::BeforeEval => self.headers(),
            Event::AfterTraining => {
                self.state.in_train = false;
                Ok(())
            }
            Event::BeforeTrainingExp => {
                self.state.training_exp = s.experience.as_ref().map(|e| e.current_experience());
                Ok(())
            }
            Event::AfterTrainingEpoch => self.epoch(s, values),
            Event::AfterEvalExp => self.experience(s, values),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("state", &self.state);
        self.training.save(out, "training");
        self.eval.save(out, "eval");
        self.metrics.save(out, "metrics");
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.state = from.get("state")?;
        self.training.load(from, "training")?;
        self.eval.load(from, "eval")?;
        self.metrics.load(from, "metrics")
    }
}

/// Appends rows, the header before the first.
fn append(file: &mut LogFile, header: &str, rows: &str) -> Result<()> {
    if file.is_empty() {
        file.append(header.as_bytes())?;
    }
    if rows.is_empty() {
        Ok(())
    } else {
        file.append(rows.as_bytes())
    }
}

/// The last value whose name starts with `start` and holds `part`.
fn find(values: &[MetricValue], start: &str, part: &str) -> Option<f64> {
    let mut named = values
        .iter()
        .filter(|v| v.name.starts_with(start) && v.name.contains(part));
    named.next_back()?.value.scalar()
}

fn id(experience: Option<usize>) -> String {
    experience.map_or_else(|| "None".into(), |id| id.to_string())
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "0".into(), four_decimals)
}

/// A field as it is, or in quotes where it would break the row (RFC 4180).
fn quoted(field: &str) -> Cow<'_, str> {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\"")).into()
    } else {
        field.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_row_are_quoted() {
        assert_eq!(quoted("a/b c"), "a/b c");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn every_number_has_all_its_digits() {
        let folder = tempfile::tempdir().unwrap();
        let mut logger = CsvLogger::new(folder.path()).unwrap();
        let value = |value| MetricValue {
            name: "a".into(),
            value,
            x: 3,
        };
        let values = [
            value(MetricData::Scalar(0.1)),
            value(MetricData::Scalar(1e300)),
            value(MetricData::Scalar(f64::NAN)),
            value(MetricData::Integer(-7)),
            value(MetricData::Bytes(vec![1])),
        ];
        logger.long(&values).unwrap();
        let text = std::fs::read_to_string(folder.path().join("metrics.csv")).unwrap();
        assert_eq!(text, "x,name,value\n3,a,0.1\n3,a,1e300\n3,a,nan\n3,a,-7\n");
    }
}
