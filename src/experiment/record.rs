//! What one run of a grid leaves: a JSON file, written when it is done and never before.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::checkpoint::write_atomically;
use crate::{Error, Result};

/// A run that is done: it was trained to the end, or it diverged. Accuracies are in per cent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The name of the run within its grid.
    pub name: String,
    /// The benchmark, as `--benchmark` names it.
    pub benchmark: String,
    /// The strategy, as `--strategy` names it.
    pub method: String,
    /// Samples in the buffer.
    pub buffer: usize,
    /// The seed of the run.
    pub seed: u64,
    /// What was not finite, and where, if the training diverged: a run that is the same each time, so it
    /// is not tried again. It has no accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
    /// Mean over the tasks of the accuracy after the last of them: Class-IL, or Domain-IL.
    pub accuracy: Option<f64>,
    /// The same with the outputs of the task's classes only: Task-IL.
    pub accuracy_task: Option<f64>,
    /// Best accuracy on a task at any time minus that at the end, mean over all tasks but the last.
    pub forgetting: Option<f64>,
    /// After each task, the accuracy on it and on those before.
    pub rows: Vec<Vec<f64>>,
    /// The same, Task-IL.
    pub rows_task: Vec<Vec<f64>>,
    /// Training steps.
    pub steps: u64,
    /// Seconds of the whole run, evaluations included, reading the data not.
    pub seconds: f64,
    /// Of these, seconds of training.
    pub seconds_training: f64,
    /// The version of the program.
    pub version: String,
    /// The commit that the program's folder was at, if it lies in a repository.
    pub commit: Option<String>,
    /// Every option of the run.
    pub config: toml::Table,
}

impl Record {
    /// Writes the record to `path` in one step.
    ///
    /// # Errors
    /// [`Error::Io`] if that is not possible.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("numbers, words and tables");
        write_atomically(path, text.as_bytes())
    }

    /// The record in `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is something else.
    pub fn read(path: &Path) -> Result<Option<Record>> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|e| Error::io("read", path, e))?,
        };
        serde_json::from_str(&text).map(Some).map_err(|e| {
            let remedy = "remove the file, and the run is done again";
            Error::format(path, "the record of a finished run", e, remedy)
        })
    }
}

/// Mean over all tasks but the last of the best accuracy at any time minus that at the end, as the
/// authors of DER compute it: never below 0. `rows` grow by one task each.
pub(super) fn forgetting(rows: &[Vec<f64>]) -> Option<f64> {
    let last = rows.last()?;
    let before = last.len().checked_sub(1).filter(|&n| n > 0)?;
    if rows.len() < 2 {
        return None;
    }
    let best = |task: usize| {
        let all = rows.iter().filter_map(|row| row.get(task)).copied();
        all.fold(f64::NEG_INFINITY, f64::max)
    };
    let sum: f64 = (0..before).map(|task| best(task) - last[task]).sum();
    Some(sum / before as f64)
}

/// The commit of the repository that the running program lies in, "-dirty" if files differ from it.
pub(super) fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new("git")
        .arg("-C")
        .arg(program.parent()?)
        .args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude=*",
        ])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetting_is_the_best_minus_the_last() {
        let rows = [vec![90.0], vec![95.0, 80.0], vec![70.0, 85.0, 99.0]];
        // 95 - 70, and 85 - 85 although it was 80 right after learning.
        assert_eq!(forgetting(&rows), Some(12.5));
        assert_eq!(forgetting(&rows[..1]), None);
        assert_eq!(forgetting(&[vec![1.0, 2.0]]), None, "joint training");
    }

    #[test]
    fn a_record_comes_back_and_half_of_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        assert_eq!(Record::read(&path).unwrap(), None);
        let record = Record {
            name: "r-mnist/der/200".into(),
            benchmark: "r-mnist".into(),
            method: "der".into(),
            buffer: 200,
            seed: 3,
            diverged: None,
            accuracy: Some(90.04),
            accuracy_task: Some(91.0),
            forgetting: None,
            rows: vec![vec![1.5]],
            rows_task: vec![vec![2.5]],
            steps: 9380,
            seconds: 12.5,
            seconds_training: 10.0,
            version: "0".into(),
            commit: None,
            config: toml::from_str("lr = 0.2\nseed = 3\nrotations-list = [1.5]").unwrap(),
        };
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = Record::read(&path).unwrap_err().to_string();
        assert!(error.contains("remove the file"), "{error}");
    }
}
