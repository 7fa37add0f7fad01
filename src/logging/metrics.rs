//! `metrics.jsonl`: one JSON object a line, in the order in which things happen. Numbers that are
//! not finite are written as `null`, which every JSON reader accepts.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::training::{Plugin, State};
use crate::{Error, Result};

/// The losses of one training step.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Iteration {
    /// Training steps done before this one in the whole run: the first is 0, as in Avalanche.
    pub step: u64,
    /// The experience trained on.
    pub experience: usize,
    /// The pass over it, from 0.
    pub epoch: u64,
    /// The loss that was minimised.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f32,
    /// Its part on the labels of the current samples.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss_current: f32,
    /// Its part on replayed logits (alpha included).
    #[serde(deserialize_with = "null_is_nan")]
    pub loss_logits: f32,
    /// Its part on replayed labels (beta included).
    #[serde(deserialize_with = "null_is_nan")]
    pub loss_replay: f32,
}

fn null_is_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f32::NAN))
}

/// How well one test experience is known after one training.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Evaluation {
    /// The experience trained on last.
    pub after_experience: usize,
    /// The experience tested.
    pub experience: usize,
    /// Accuracy among all classes (class-incremental).
    pub accuracy: Option<f64>,
    /// Accuracy among the classes of the experience (task-incremental).
    pub accuracy_task: Option<f64>,
    /// Mean loss a sample.
    pub loss: Option<f64>,
}

/// A line, with its `type` first.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a, S> {
    Iteration(&'a Iteration),
    Eval(&'a Evaluation),
    Summary(&'a S),
}

/// The open file, and the steps written to it so far (the report draws them).
pub struct MetricsFile {
    path: PathBuf,
    file: BufWriter<File>,
    iterations: Vec<Iteration>,
}

impl MetricsFile {
    /// Creates the file.
    ///
    /// # Errors
    /// [`Error::Io`] if it exists or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|e| Error::io("write", path, e))?;
        Ok(MetricsFile {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            iterations: Vec::new(),
        })
    }

    /// Opens the file of a run that goes on, as it was when it had `bytes` bytes.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read or written; [`Error::Format`] if it is shorter, or has a
    /// line that was not written here.
    pub fn resume(path: &Path, bytes: u64) -> Result<Self> {
        let io = |action| move |e| Error::io(action, path, e);
        let mut file = (File::options().read(true).write(true).open(path)).map_err(io("open"))?;
        let bad = |found: String| {
            let remedy = "put back the file of the interrupted run, or start the run anew";
            Error::format(path, format!("{bytes} bytes of metrics"), found, remedy)
        };
        let found = file.metadata().map_err(io("read"))?.len();
        if found < bytes {
            return Err(bad(format!("{found} bytes")));
        }
        file.set_len(bytes).map_err(io("shorten"))?;
        let mut iterations = Vec::new();
        for line in BufReader::new(&file).lines() {
            let line = line.map_err(io("read"))?;
            let value: serde_json::Value =
                serde_json::from_str(&line).map_err(|e| bad(format!("{line:?} ({e})")))?;
            if value["type"] == "iteration" {
                let iteration =
                    serde_json::from_value(value).map_err(|e| bad(format!("{line:?} ({e})")))?;
                iterations.push(iteration);
            }
        }
        file.seek(SeekFrom::End(0)).map_err(io("read"))?;
        Ok(MetricsFile {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            iterations,
        })
    }

    /// Bytes written so far, all of them through to the file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn position(&mut self) -> Result<u64> {
        self.flush()?;
        (self.file.stream_position()).map_err(|e| Error::io("read", &self.path, e))
    }

    /// The training steps written so far.
    pub fn iterations(&self) -> &[Iteration] {
        &self.iterations
    }

    /// Writes a training step.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn iteration(&mut self, iteration: Iteration) -> Result<()> {
        self.iterations.push(iteration);
        self.line::<()>(&Line::Iteration(&iteration))
    }

    /// Writes an evaluation, and everything before it, through to the file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn evaluation(&mut self, evaluation: Evaluation) -> Result<()> {
        self.line::<()>(&Line::Eval(&evaluation))?;
        self.flush()
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn summary(&mut self, summary: &impl Serialize) -> Result<()> {
        self.line(&Line::Summary(summary))?;
        self.flush()
    }

    fn line<S: Serialize>(&mut self, line: &Line<'_, S>) -> Result<()> {
        serde_json::to_writer(&mut self.file, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|e| Error::io("write", &self.path, e))
    }

    fn flush(&mut self) -> Result<()> {
        self.file
            .flush()
            .map_err(|e| Error::io("write", &self.path, e))
    }
}

/// The plugin that writes the losses of every so many steps.
pub struct IterationLog {
    /// The file, which the run also writes its evaluations to.
    pub file: Arc<Mutex<MetricsFile>>,
    /// Steps from one line to the next; the first step is always written.
    pub every: u64,
}

impl Plugin for IterationLog {
    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        let step = s.clock.train_iterations;
        if !step.is_multiple_of(self.every) {
            return Ok(());
        }
        let mut file = self
            .file
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        file.iteration(Iteration {
            step,
            experience: s.experience.as_ref().map_or(0, |e| e.current_experience()),
            epoch: s.clock.train_exp_epochs,
            loss: s.loss().total,
            loss_current: s.loss().current,
            loss_logits: s.loss().logits,
            loss_replay: s.loss().replay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_documented_form_and_no_nan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::create(&path).unwrap();
        file.iteration(Iteration {
            step: 0,
            experience: 1,
            epoch: 2,
            loss: 0.1,
            loss_current: f32::NAN,
            loss_logits: f32::INFINITY,
            loss_replay: 0.0,
        })
        .unwrap();
        let evaluation = Evaluation {
            after_experience: 0,
            experience: 1,
            accuracy: Some(0.5),
            accuracy_task: None,
            loss: Some(f64::NAN),
        };
        file.evaluation(evaluation).unwrap();
        file.summary(&serde_json::json!({"seed": 3})).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let wanted = [
            r#"{"type":"iteration","step":0,"experience":1,"epoch":2,"loss":0.1,"loss_current":null,"loss_logits":null,"loss_replay":0.0}"#,
            r#"{"type":"eval","after_experience":0,"experience":1,"accuracy":0.5,"accuracy_task":null,"loss":null}"#,
            r#"{"type":"summary","seed":3}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
        assert!(
            MetricsFile::create(&path).is_err(),
            "an earlier file is not replaced"
        );
    }
}
