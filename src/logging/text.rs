//! The text log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use ndarray::{ArrayViewD, Axis};

use super::calendar::{now, utc};
use super::file::LogFile;
use crate::benchmarks::Experience;
use crate::evaluation::Logger;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};
use crate::{Error, Result};

/// Where the lines go.
enum Sink {
    Stdout,
    Writer(Box<dyn Write + Send>),
    File(LogFile),
}

impl Sink {
    fn write(&mut self, text: &str) -> Result<()> {
        let (name, done) = match self {
            Sink::File(file) => return file.append(text.as_bytes()),
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                // A reader that has seen enough (`| head`) is no reason to stop a training.
                let closed = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
                (
                    "standard output",
                    done.or_else(|e| if closed(&e) { Ok(()) } else { Err(e) }),
                )
            }
            Sink::Writer(out) => {
                let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                ("the text log", done)
            }
        };
        done.map_err(|e| Error::io("write", name, e))
    }
}

/// Avalanche's `TextLogger`: says what begins and ends, and prints the last value of every metric
/// after each training epoch, each evaluated experience and each call of `eval`.
///
/// The lines are Avalanche's, in its order: metrics sorted by name, numbers with four decimals. The
/// metrics of iterations show the value of the last one. Pictures and serialised data are left out.
///
/// ```
/// use unforget::evaluation::{At, EvaluationPlugin, accuracy_metrics};
/// use unforget::logging::TextLogger;
///
/// let evaluator = EvaluationPlugin::new()
///     .metrics(accuracy_metrics(&[At::Epoch, At::Stream]))
///     .logger(TextLogger::stdout());
/// ```
pub struct TextLogger {
    sink: Sink,
    name: &'static str,
    values: BTreeMap<String, MetricData>,
    text: String,
}

impl TextLogger {
    /// Prints on standard output.
    pub fn stdout() -> Self {
        TextLogger::new(Sink::Stdout)
    }

    /// Writes to `out`, which is flushed after each block of lines.
    pub fn writer(out: impl Write + Send + 'static) -> Self {
        TextLogger::new(Sink::Writer(Box::new(out)))
    }

    /// Writes a file. A new run replaces what is in it, a resumed one continues it where the
    /// checkpoint was written.
    ///
    /// # Errors
    /// [`Error::Io`] if the file or its folder cannot be made.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        Ok(TextLogger::new(Sink::File(LogFile::open(path)?)))
    }

    fn new(sink: Sink) -> Self {
        TextLogger {
            sink,
            name: "TextLogger",
            values: BTreeMap::new(),
            text: String::new(),
        }
    }

    /// As [`stdout`](Self::stdout), under another name in the line that says that a run goes on.
    pub(super) fn named(name: &'static str) -> Self {
        TextLogger {
            name,
            ..TextLogger::stdout()
        }
    }

    /// Whether anything is printed at `event`.
    pub(super) fn prints(event: Event) -> bool {
        use Event::*;
        matches!(
            event,
            BeforeTraining
                | BeforeTrainingExp
                | AfterTrainingEpoch
                | AfterTraining
                | BeforeEval
                | BeforeEvalExp
                | AfterEvalExp
                | AfterEval
        )
    }

    fn line(&mut self, event: Event, s: &State) {
        let out = &mut self.text;
        let current = s.experience.as_ref();
        let name = |e: &Experience| {
            let (id, stream) = (e.current_experience(), e.stream_name());
            match one_task(e) {
                Some(task) => format!("experience {id} (Task {task}) from {stream} stream"),
                None => format!("experience {id} from {stream} stream"),
            }
        };
        // Writing to a string cannot fail.
        let _ = match (event, current) {
            (Event::BeforeTraining, _) => writeln!(out, "-- >> Start of training phase << --"),
            (Event::AfterTraining, _) => writeln!(out, "-- >> End of training phase << --"),
            (Event::BeforeEval, _) => writeln!(out, "-- >> Start of eval phase << --"),
            (Event::AfterEval, _) => writeln!(out, "-- >> End of eval phase << --"),
            (Event::AfterTrainingEpoch, _) => {
                writeln!(out, "Epoch {} ended.", s.clock.train_exp_epochs)
            }
            (Event::BeforeTrainingExp, Some(e)) => {
                writeln!(out, "-- Starting training on {} --", name(e))
            }
            (Event::BeforeEvalExp, Some(e)) => {
                writeln!(out, "-- Starting eval on {} --", name(e))
            }
            (Event::AfterEvalExp, Some(e)) => writeln!(out, "> Eval on {} ended.", name(e)),
            _ => Ok(()),
        };
    }
}

impl Logger for TextLogger {
    fn on(&mut self, event: Event, s: &State, values: &[MetricValue]) -> Result<()> {
        for MetricValue { name, value, .. } in values {
            if let Some(last) = self.values.get_mut(name) {
                last.clone_from(value);
            } else if !matches!(value, MetricData::Image(_) | MetricData::Bytes(_)) {
                self.values.insert(name.clone(), value.clone());
            }
        }
        if !TextLogger::prints(event) {
            return Ok(());
        }
        self.text.clear();
        self.line(event, s);
        if matches!(
            event,
            Event::AfterTrainingEpoch | Event::AfterEvalExp | Event::AfterEval
        ) {
            for (name, value) in &self.values {
                let _ = writeln!(self.text, "\t{name} = {}", shown(value));
            }
            self.values.clear();
        }
        self.sink.write(&self.text)
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("values", &self.values);
        if let Sink::File(file) = &self.sink {
            file.save(out, "length");
        }
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.values = from.get("values")?;
        if let Sink::File(file) = &mut self.sink {
            file.load(from, "length")?;
        }
        let [year, month, day, h, m, s] = utc(now());
        self.sink.write(&format!(
            "[{}] Resuming from checkpoint. Current time is \
             {year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} +0000\n",
            self.name
        ))
    }
}

/// The task label that all samples have; `None` if they differ.
fn one_task(e: &Experience) -> Option<u32> {
    let dataset = e.dataset();
    let task = e.task_label();
    (0..dataset.len())
        .all(|i| dataset.task_label(i) == task)
        .then_some(task)
}

/// A number with four decimals, under Python's name where it is none.
pub(super) fn four_decimals(value: f64) -> String {
    if value.is_nan() {
        "nan".into()
    } else {
        format!("{value:.4}")
    }
}

fn shown(value: &MetricData) -> String {
    match value {
        MetricData::Scalar(value) => four_decimals(*value),
        MetricData::Integer(value) => value.to_string(),
        MetricData::Tensor(array) => format!("\n{}", tensor(array.view())),
        MetricData::Image(_) | MetricData::Bytes(_) => String::new(),
    }
}

/// PyTorch's way to show a tensor: whole numbers plain, others with four decimals, all equally wide.
fn tensor(array: ArrayViewD<'_, f64>) -> String {
    const START: &str = "tensor(";
    let whole = array.iter().all(|v| v.fract() == 0.0 && v.abs() < 1e15);
    let show = |v: f64| {
        if whole {
            format!("{v:.0}")
        } else {
            four_decimals(v)
        }
    };
    let width = array.iter().map(|&v| show(v).len()).max().unwrap_or(0);
    let mut out = String::from(START);
    nested(&mut out, array, START.len(), &|v| {
        format!("{:>width$}", show(v))
    });
    out.push(')');
    out
}

/// `array` in brackets; `indent` is the column of its first bracket.
fn nested(
    out: &mut String,
    array: ArrayViewD<'_, f64>,
    indent: usize,
    show: &dyn Fn(f64) -> String,
) {
    let Some(dims) = array.ndim().checked_sub(1) else {
        out.push_str(&array.first().map_or_else(String::new, |&v| show(v)));
        return;
    };
    out.push('[');
    for (i, part) in array.axis_iter(Axis(0)).enumerate() {
        if i > 0 {
            let gap = if dims == 0 {
                " ".to_string()
            } else {
                "\n".repeat(dims) + &" ".repeat(indent + 1)
            };
            out.push(',');
            out.push_str(&gap);
        }
        nested(out, part, indent + 1, show);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{ArrayD, arr0, arr1, arr2, arr3};

    #[test]
    fn values_are_shown_as_python_shows_them() {
        for (value, wanted) in [
            (MetricData::Scalar(0.123_45), "0.1235"),
            (MetricData::Scalar(2.0), "2.0000"),
            (MetricData::Scalar(f64::NAN), "nan"),
            (MetricData::Scalar(f64::NEG_INFINITY), "-inf"),
            (MetricData::Integer(-3), "-3"),
        ] {
            assert_eq!(shown(&value), wanted);
        }
    }

    #[test]
    fn tensors_are_nested_and_columns_line_up() {
        let text = |array: ArrayD<f64>| tensor(array.view());
        assert_eq!(text(arr0(0.5).into_dyn()), "tensor(0.5000)");
        assert_eq!(text(arr1(&[1.0, -2.0]).into_dyn()), "tensor([ 1, -2])");
        assert_eq!(text(ArrayD::zeros(vec![0])), "tensor([])");
        assert_eq!(
            text(arr2(&[[0.25, 10.0], [f64::NAN, 0.0]]).into_dyn()),
            "tensor([[ 0.2500, 10.0000],\n        [    nan,  0.0000]])"
        );
        assert_eq!(
            text(arr3(&[[[1.0], [2.0]], [[3.0], [4.0]]]).into_dyn()),
            "tensor([[[1],\n         [2]],\n\n        [[3],\n         [4]]])"
        );
    }
}
