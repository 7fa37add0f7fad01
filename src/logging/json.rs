//! Every value as a line of JSON.

use std::path::Path;

use ndarray::{ArrayViewD, Axis};
use serde_json::{Value, json};

use super::file::LogFile;
use crate::Result;
use crate::evaluation::Logger;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// Writes each value that a metric emits as one line, such as
/// `{"x":12,"name":"Loss_Epoch/train_phase/train_stream/Task000","value":0.25}`.
///
/// `x` counts training iterations. A tensor is an array of arrays; what is not finite is `null`;
/// pictures and serialised data are left out. A new run replaces the file, a resumed one continues
/// it where the checkpoint was written.
pub struct JsonLinesLogger {
    file: LogFile,
    lines: Vec<u8>,
}

impl JsonLinesLogger {
    /// Writes the file `path`; its folder is made if there is none.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file or its folder cannot be made.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        Ok(JsonLinesLogger {
            file: LogFile::open(path)?,
            lines: Vec::new(),
        })
    }
}

impl Logger for JsonLinesLogger {
    fn on(&mut self, event: Event, _: &State, values: &[MetricValue]) -> Result<()> {
        // The file is there from the start.
        if event != Event::BeforeTraining && values.is_empty() {
            return Ok(());
        }
        self.lines.clear();
        for MetricValue { name, value, x } in values {
            if let Some(value) = in_json(value) {
                // Maps are sorted by key; the order of a line is for people, so it is written out.
                let line = format!("{{\"x\":{x},\"name\":{},\"value\":{value}}}\n", json!(name));
                self.lines.extend_from_slice(line.as_bytes());
            }
        }
        self.file.append(&self.lines)
    }

    fn save(&self, out: &mut Snapshot) {
        self.file.save(out, "length");
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.file.load(from, "length")
    }
}

/// Numbers that are not finite become `null`, as `serde_json` has it.
fn in_json(value: &MetricData) -> Option<Value> {
    match value {
        MetricData::Scalar(value) => Some(json!(value)),
        MetricData::Integer(value) => Some(json!(value)),
        MetricData::Tensor(array) => Some(nested(array.view())),
        MetricData::Image(_) | MetricData::Bytes(_) => None,
    }
}

fn nested(array: ArrayViewD<'_, f64>) -> Value {
    if array.ndim() == 0 {
        return json!(array.first());
    }
    array.axis_iter(Axis(0)).map(nested).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr0, arr2};

    #[test]
    fn values_are_numbers_arrays_or_null() {
        let text = |value| in_json(&value).map(|v| v.to_string());
        assert_eq!(text(MetricData::Scalar(0.1)).unwrap(), "0.1");
        assert_eq!(text(MetricData::Scalar(f64::INFINITY)).unwrap(), "null");
        assert_eq!(text(MetricData::Integer(-3)).unwrap(), "-3");
        let matrix = arr2(&[[1.0, f64::NAN], [0.5, 2.0]]).into_dyn();
        assert_eq!(
            text(MetricData::Tensor(matrix)).unwrap(),
            "[[1.0,null],[0.5,2.0]]"
        );
        assert_eq!(
            text(MetricData::Tensor(arr0(2.5).into_dyn())).unwrap(),
            "2.5"
        );
        assert_eq!(text(MetricData::Bytes(vec![1])), None);
    }
}
