//! Log files that outlive the run they were begun in.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::snapshot::Snapshot;
use crate::{Error, Result};

/// A file that only grows. Nothing is buffered here, so that what was logged survives the end of
/// the program, however it comes; a checkpoint notes the length, and a resumed run cuts the file
/// back to it before it goes on.
///
/// Opening leaves an earlier file as it is, because it may be the one to continue; the first write
/// of a run that was not resumed replaces its content.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    begun: bool,
}

impl LogFile {
    /// Opens the file, and makes its folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, e))?;
        }
        let file = (OpenOptions::new().write(true).create(true).truncate(false))
            .open(&path)
            .map_err(|e| Error::io("write", &path, e))?;
        Ok(LogFile {
            path,
            file,
            length: 0,
            begun: false,
        })
    }

    /// Whether nothing has been written: a header is due.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes behind what is there.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.begun {
            self.cut(0)?;
        }
        (self.file.write_all(bytes)).map_err(|e| Error::io("write", &self.path, e))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Notes the length under `name`. What is in the file by then is on the disk before the
    /// checkpoint is.
    pub fn save(&self, out: &mut Snapshot, name: &str) {
        if let Err(e) = self.file.sync_data() {
            log::warn!(
                "cannot make sure that {} is on the disk: {e}",
                self.path.display()
            );
        }
        out.put(name, &self.length);
    }

    /// Cuts the file back to the length under `name`. A file that is gone is begun anew, with a
    /// warning; one that is shorter is another file.
    pub fn load(&mut self, from: &Snapshot, name: &str) -> Result<()> {
        let wanted: u64 = from.get(name)?;
        let found = (self.file.metadata())
            .map_err(|e| Error::io("read", &self.path, e))?
            .len();
        if found == 0 && wanted > 0 {
            log::warn!(
                "{} of the earlier run is not here: begun anew",
                self.path.display()
            );
        } else if found < wanted {
            return Err(Error::Checkpoint(format!(
                "{}: expected at least {wanted} bytes, as when the checkpoint was written, found \
                 {found}; put that run's file back, or move this one away to begin a new one",
                self.path.display()
            )));
        }
        self.cut(wanted.min(found))
    }

    fn cut(&mut self, length: u64) -> Result<()> {
        // Devices and pipes cannot be cut and need not be.
        let regular = self.file.metadata().is_ok_and(|m| m.is_file());
        let done = if regular {
            (self.file.set_len(length))
                .and_then(|()| self.file.seek(SeekFrom::Start(length)).map(drop))
        } else {
            Ok(())
        };
        done.map_err(|e| Error::io("write", &self.path, e))?;
        self.length = length;
        self.begun = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_new_run_replaces_and_a_resumed_one_continues() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.txt");
        let mut file = LogFile::open(&path).unwrap();
        file.append(b"one\n").unwrap();
        let mut noted = Snapshot::default();
        file.save(&mut noted, "file");
        file.append(b"lost\n").unwrap();

        let mut resumed = LogFile::open(&path).unwrap();
        assert_eq!(read(&path), "one\nlost\n", "opening changes nothing");
        resumed.load(&noted, "file").unwrap();
        assert!(!resumed.is_empty());
        resumed.append(b"two\n").unwrap();
        assert_eq!(read(&path), "one\ntwo\n");

        LogFile::open(&path).unwrap().append(b"new\n").unwrap();
        assert_eq!(read(&path), "new\n");
    }

    #[test]
    fn a_missing_file_is_begun_anew_and_a_shorter_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut noted = Snapshot::default();
        noted.put("file", &9_u64);
        let mut file = LogFile::open(&path).unwrap();
        file.load(&noted, "file").unwrap();
        assert!(file.is_empty());
        fs::write(&path, "short").unwrap();
        let error = LogFile::open(&path)
            .unwrap()
            .load(&noted, "file")
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("9 bytes") && error.contains("found 5"),
            "{error}"
        );
        assert_eq!(read(&path), "short", "and left alone");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_and_a_closed_folder_are_one_message() {
        let mut full = LogFile::open("/dev/full").unwrap();
        let error = full.append(b"x").unwrap_err().to_string();
        assert!(error.starts_with("cannot write /dev/full: "), "{error}");
        let error = LogFile::open("/proc/none/log").unwrap_err().to_string();
        assert!(error.contains("create the folder /proc/none"), "{error}");
    }
}
