//! CIFAR-10 and CIFAR-100, in their binary and in their Python version.
//!
//! Binary: records without any header: one label byte (CIFAR-100: the coarse label, then the fine one),
//! then 32 x 32 bytes of red, of green and of blue, each row by row (A. Krizhevsky, "Learning
//! multiple layers of features from tiny images", 2009; the data page's "binary version").
//!
//! Python: pickled dictionaries with an array `data`, 3072 bytes a row in the same order, and a list
//! of labels. They are read without running anything that is in them.

use super::Dataset;
use super::pickle::{Item, dictionary};
use crate::{Error, Result};
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
/// More than any batch of the Python version holds.
const MAX_BATCH: u64 = 1 << 30;

/// One of the two data sets in this format.
struct Format {
    /// The name in messages and of the [`Dataset`].
    name: &'static str,
    /// The folder that the archive unpacks into.
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// How many labels there are, for each label byte of a record; the last one is the target.
    labels: &'static [usize],
    python: Python,
}

/// The same data set as Python's pickles.
struct Python {
    folder: &'static str,
    archive: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// The key of the targets.
    labels: &'static str,
}

const CIFAR10: Format = Format {
    name: "cifar10",
    folder: "cifar-10-batches-bin",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: "test_batch.bin",
    labels: &[10],
    python: Python {
        folder: "cifar-10-batches-py",
        archive: "cifar-10-python.tar.gz",
        train: &[
            "data_batch_1",
            "data_batch_2",
            "data_batch_3",
            "data_batch_4",
            "data_batch_5",
        ],
        test: "test_batch",
        labels: "labels",
    },
};

const CIFAR100: Format = Format {
    name: "cifar100",
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: "test.bin",
    labels: &[20, 100],
    python: Python {
        folder: "cifar-100-python",
        archive: "cifar-100-python.tar.gz",
        train: &["train"],
        test: "test",
        labels: "fine_labels",
    },
};

/// Reads CIFAR-10, (training images, test images) of 3 x 32 x 32 bytes, from `data_batch_1.bin` to
/// `data_batch_5.bin` and `test_batch.bin` in `dir` or in `dir/cifar-10-batches-bin`; if they are not
/// there, from the Python version, unpacked (in `dir` or `dir/cifar-10-batches-py`) or as
/// `dir/cifar-10-python.tar.gz`.
///
/// # Errors
/// [`Error::DataMissing`] if a file is not there, [`Error::Format`] if one is empty, damaged, holds
/// part of a record or a label above 9, [`Error::Io`] if one cannot be read.
pub fn cifar10_folder(dir: &Path) -> Result<(Dataset, Dataset)> {
    CIFAR10.read(dir)
}

/// Reads CIFAR-100 with its 100 fine labels, (training images, test images) of 3 x 32 x 32 bytes,
/// from `train.bin` and `test.bin` in `dir` or in `dir/cifar-100-binary`; if they are not there, from
/// the Python version, unpacked (in `dir` or `dir/cifar-100-python`) or as
/// `dir/cifar-100-python.tar.gz`.
///
/// # Errors
/// As [`cifar10_folder`], with coarse labels up to 19 and fine labels up to 99.
pub fn cifar100_folder(dir: &Path) -> Result<(Dataset, Dataset)> {
    CIFAR100.read(dir)
}

/// Whether [`cifar10_folder`] (or, with `hundred`, [`cifar100_folder`]) finds its test file.
pub(super) fn is_folder(dir: &Path, hundred: bool) -> bool {
    let format = if hundred { &CIFAR100 } else { &CIFAR10 };
    format.binary_folder(dir).is_some() || format.python.source(dir).is_some()
}

/// Where the Python version lies.
enum PythonSource {
    Folder(PathBuf),
    Archive(PathBuf),
}

impl Python {
    fn source(&self, dir: &Path) -> Option<PythonSource> {
        if let Some(dir) = with_file(dir, self.folder, self.test) {
            return Some(PythonSource::Folder(dir));
        }
        let archive = dir.join(self.archive);
        archive.is_file().then_some(PythonSource::Archive(archive))
    }

    /// The content of the files, with the path that each has in messages.
    fn read(
        &self,
        source: PythonSource,
        remedy: &str,
    ) -> Result<BTreeMap<&str, (PathBuf, Vec<u8>)>> {
        let names = || self.train.iter().copied().chain([self.test]);
        let mut contents = BTreeMap::new();
        match source {
            PythonSource::Folder(dir) => {
                for name in names() {
                    let path = dir.join(name);
                    let content = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
                    contents.insert(name, (path, content));
                }
            }
            PythonSource::Archive(path) => {
                let wrong = |found: String| {
                    let expected = format!("a .tar.gz with the folder {}", self.folder);
                    Error::format(&path, expected, found, remedy)
                };
                let damaged = |error: std::io::Error| wrong(format!("damage ({error})"));
                let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
                let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
                for entry in archive.entries().map_err(damaged)? {
                    let entry = entry.map_err(damaged)?;
                    let inside = entry.path().map_err(damaged)?.into_owned();
                    let wanted = names().find(|name| inside == Path::new(self.folder).join(name));
                    let Some(name) = wanted else { continue };
                    let mut content = Vec::new();
                    let most = entry.take(MAX_BATCH).read_to_end(&mut content);
                    most.map_err(damaged)?;
                    contents.insert(name, (path.join(inside), content));
                }
                if let Some(name) = names().find(|name| !contents.contains_key(name)) {
                    return Err(wrong(format!("no file {name} in it")));
                }
            }
        }
        Ok(contents)
    }
}

/// `dir/inner` or `dir`, whichever holds `file`.
fn with_file(dir: &Path, inner: &str, file: &str) -> Option<PathBuf> {
    [dir.join(inner), dir.to_path_buf()]
        .into_iter()
        .find(|dir| dir.join(file).is_file())
}

impl Format {
    fn binary_folder(&self, dir: &Path) -> Option<PathBuf> {
        with_file(dir, self.folder, self.test)
    }

    fn read(&self, dir: &Path) -> Result<(Dataset, Dataset)> {
        let python = match self.binary_folder(dir) {
            Some(_) => None,
            None => self.python.source(dir),
        };
        if let Some(source) = python {
            return self.read_python(source);
        }
        let inner = dir.join(self.folder);
        let dir = if inner.is_dir() { &inner } else { dir };
        Ok((self.part(dir, self.train)?, self.part(dir, &[self.test])?))
    }

    fn read_python(&self, source: PythonSource) -> Result<(Dataset, Dataset)> {
        let remedy = format!(
            "download {} again from https://www.cs.toronto.edu/~kriz/cifar.html",
            self.python.archive
        );
        let contents = self.python.read(source, &remedy)?;
        let part = |names: &[&str]| {
            let (mut pixels, mut targets) = (Vec::new(), Vec::new());
            for &name in names {
                let (path, content) = &contents[name];
                let (data, labels) = self.python_batch(content).map_err(|found| {
                    let expected = format!("a pickled batch of {}", self.name);
                    Error::format(path, expected, found, &remedy)
                })?;
                pixels.extend_from_slice(data);
                targets.extend(labels);
            }
            self.dataset(pixels, targets)
        };
        Ok((part(self.python.train)?, part(&[self.python.test])?))
    }

    /// Pixels and targets of a pickled batch, or what is wrong with it.
    fn python_batch<'a>(&self, content: &'a [u8]) -> Result<(&'a [u8], Vec<u32>), String> {
        let mut batch = dictionary(content)?;
        let key = self.python.labels;
        let Some(Item::Ints(labels)) = batch.remove(key.as_bytes()) else {
            return Err(format!("no list of numbers `{key}`"));
        };
        let Some(Item::Bytes(data)) = batch.remove(&b"data"[..]) else {
            return Err("no array of bytes `data`".into());
        };
        if labels.is_empty() || data.len() != labels.len() * PIXELS {
            return Err(format!("{} bytes for {} labels", data.len(), labels.len()));
        }
        let n = self.n_classes();
        let target = |label: i64| u32::try_from(label).ok().filter(|&t| (t as usize) < n);
        let targets = labels.iter().map(|&label| {
            target(label).ok_or_else(|| format!("label {label}, not one of 0 to {}", n - 1))
        });
        Ok((data, targets.collect::<Result<_, String>>()?))
    }

    fn n_classes(&self) -> usize {
        self.labels[self.labels.len() - 1]
    }

    fn dataset(&self, pixels: Vec<u8>, targets: Vec<u32>) -> Result<Dataset> {
        Dataset::from_u8(self.name, SHAPE, pixels, targets, self.n_classes())
    }

    fn part(&self, dir: &Path, files: &[&str]) -> Result<Dataset> {
        let (mut pixels, mut targets) = (Vec::new(), Vec::new());
        for file in files {
            self.append(&dir.join(file), &mut pixels, &mut targets)?;
        }
        self.dataset(pixels, targets)
    }

    fn append(&self, path: &Path, pixels: &mut Vec<u8>, targets: &mut Vec<u32>) -> Result<()> {
        let remedy = format!("download it again with `unforget data get {}`", self.name);
        if !path.is_file() {
            return Err(Error::DataMissing(format!(
                "{}: expected a file of {}, found none; {remedy}",
                path.display(),
                self.name
            )));
        }
        let content = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
        let record = self.labels.len() + PIXELS;
        if content.is_empty() || !content.len().is_multiple_of(record) {
            let expected = format!("one or more records of {record} bytes");
            let found = format!("{} bytes", content.len());
            return Err(Error::format(path, expected, found, remedy));
        }
        for (at, record) in content.chunks_exact(record).enumerate() {
            let (labels, image) = record.split_at(self.labels.len());
            for (&label, &n) in labels.iter().zip(self.labels) {
                if usize::from(label) >= n {
                    let expected = format!("labels from 0 to {}", n - 1);
                    let found = format!("label {label} in record {at}");
                    return Err(Error::format(path, expected, found, remedy));
                }
            }
            pixels.extend_from_slice(image);
            targets.push(labels[labels.len() - 1].into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
