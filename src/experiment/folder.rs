//! The folder a run leaves behind.

use std::fs;
use std::path::{Path, PathBuf};

use crate::logging::{now, utc};
use crate::{Error, Result};

/// A run's folder and the names of the files in it.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes the folder of a new run: `out`, or a new one under `runs/` named after the time (UTC),
    /// the strategy and the benchmark. An earlier run is never written over.
    ///
    /// # Errors
    /// [`Error::Config`] if `out` has something in it already, [`Error::Io`] if the folder cannot
    /// be made.
    pub fn create(out: Option<&Path>, strategy: &str, benchmark: &str) -> Result<Self> {
        if let Some(out) = out {
            fs::create_dir_all(out).map_err(|e| Error::io("create the folder", out, e))?;
            let mut entries =
                fs::read_dir(out).map_err(|e| Error::io("read the folder", out, e))?;
            if entries.next().is_some() {
                return Err(Error::config(
                    "--out",
                    "a new or empty folder (earlier runs are kept: give another name or remove it)",
                    format!("{} with files in it", out.display()),
                ));
            }
            return Ok(RunFolder(out.to_path_buf()));
        }
        let runs = Path::new("runs");
        fs::create_dir_all(runs).map_err(|e| Error::io("create the folder", runs, e))?;
        let name = format!("{}-{strategy}-{benchmark}", timestamp(now()));
        // Runs that start in the same second get a number; making the folder decides who is first.
        for attempt in 1u32.. {
            let folder = match attempt {
                1 => runs.join(&name),
                n => runs.join(format!("{name}-{n}")),
            };
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(RunFolder(folder)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io("create the folder", &folder, e)),
            }
        }
        unreachable!("more than four billion runs in one second")
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration that repeats the run.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Losses, evaluations and the summary, one JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// Avalanche's text log.
    pub fn log(&self) -> PathBuf {
        self.0.join("log.txt")
    }

    /// The folder of TensorBoard's events.
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("tensorboard")
    }

    /// Everything that a resumed run needs.
    pub fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint.safetensors")
    }

    /// The weights at the end.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// The page to look at.
    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    /// A folder that exists already, as `unforget eval --model DIR` names it.
    pub fn open(path: &Path) -> Self {
        RunFolder(path.to_path_buf())
    }
}

/// `20260131-235959` for seconds since 1970, in UTC.
fn timestamp(seconds: u64) -> String {
    let [year, month, date, h, m, s] = utc(seconds);
    format!("{year:04}{month:02}{date:02}-{h:02}{m:02}{s:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_sorts_by_time() {
        assert_eq!(timestamp(1_709_251_199), "20240229-235959");
    }

    #[test]
    fn a_folder_with_files_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b");
        RunFolder::create(Some(&out), "der", "split-mnist").unwrap();
        RunFolder::create(Some(&out), "der", "split-mnist").expect("empty is as good as new");
        fs::write(out.join("config.toml"), "mine").unwrap();
        let error = RunFolder::create(Some(&out), "der", "split-mnist").unwrap_err();
        assert!(error.to_string().contains("--out"), "{error}");
        assert_eq!(fs::read_to_string(out.join("config.toml")).unwrap(), "mine");
    }
}
