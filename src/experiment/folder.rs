//! The folder a run leaves behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

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
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let name = format!("{}-{strategy}-{benchmark}", timestamp(seconds));
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

/// `20260131-235959` for seconds since 1970, in UTC (days to a date after Hinnant's
/// `civil_from_days`: years counted from March, so that the leap day comes last).
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (h, m, s) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{date:02}-{h:02}{m:02}{s:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_agree_with_the_calendar() {
        assert_eq!(timestamp(0), "19700101-000000");
        assert_eq!(timestamp(951_782_400), "20000229-000000");
        assert_eq!(timestamp(1_709_251_199), "20240229-235959");
        assert_eq!(timestamp(1_735_689_600), "20250101-000000");
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
