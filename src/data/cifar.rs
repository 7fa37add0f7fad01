//! The binary version of CIFAR-10 and CIFAR-100.
//!
//! Records without any header: one label byte (CIFAR-100: the coarse label, then the fine one),
//! then 32 x 32 bytes of red, of green and of blue, each row by row (A. Krizhevsky, "Learning
//! multiple layers of features from tiny images", 2009; the data page's "binary version").

use super::Dataset;
use crate::{Error, Result};
use std::path::Path;

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;

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
};

const CIFAR100: Format = Format {
    name: "cifar100",
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: "test.bin",
    labels: &[20, 100],
};

/// Reads CIFAR-10, (training images, test images) of 3 x 32 x 32 bytes, from `data_batch_1.bin` to
/// `data_batch_5.bin` and `test_batch.bin` in `dir` or in `dir/cifar-10-batches-bin`.
///
/// # Errors
/// [`Error::DataMissing`] if a file is not there, [`Error::Format`] if one is empty, holds part of
/// a record or a label above 9, [`Error::Io`] if one cannot be read.
pub fn cifar10_folder(dir: &Path) -> Result<(Dataset, Dataset)> {
    CIFAR10.read(dir)
}

/// Reads CIFAR-100 with its 100 fine labels, (training images, test images) of 3 x 32 x 32 bytes,
/// from `train.bin` and `test.bin` in `dir` or in `dir/cifar-100-binary`.
///
/// # Errors
/// As [`cifar10_folder`], with coarse labels up to 19 and fine labels up to 99.
pub fn cifar100_folder(dir: &Path) -> Result<(Dataset, Dataset)> {
    CIFAR100.read(dir)
}

/// Whether [`cifar10_folder`] (or, with `hundred`, [`cifar100_folder`]) finds its test file.
pub(super) fn is_folder(dir: &Path, hundred: bool) -> bool {
    let format = if hundred { &CIFAR100 } else { &CIFAR10 };
    dir.join(format.test).is_file() || dir.join(format.folder).join(format.test).is_file()
}

impl Format {
    fn read(&self, dir: &Path) -> Result<(Dataset, Dataset)> {
        let inner = dir.join(self.folder);
        let dir = if inner.is_dir() { &inner } else { dir };
        Ok((self.part(dir, self.train)?, self.part(dir, &[self.test])?))
    }

    fn part(&self, dir: &Path, files: &[&str]) -> Result<Dataset> {
        let (mut pixels, mut targets) = (Vec::new(), Vec::new());
        for file in files {
            self.append(&dir.join(file), &mut pixels, &mut targets)?;
        }
        let n_classes = self.labels[self.labels.len() - 1];
        Dataset::from_u8(self.name, SHAPE, pixels, targets, n_classes)
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
mod tests {
    use super::*;
    use crate::data::Pixels;

    /// One record whose pixels are all `fill`, but for the first green one, which is 7.
    fn record(labels: &[u8], fill: u8) -> Vec<u8> {
        let mut record = labels.to_vec();
        record.extend([fill; PIXELS]);
        record[labels.len() + 1024] = 7;
        record
    }

    fn folder10(dir: &Path) {
        for i in 1..=5u8 {
            let content = record(&[i], 10 * i);
            std::fs::write(dir.join(format!("data_batch_{i}.bin")), content).unwrap();
        }
        let content = [record(&[9], 1), record(&[0], 2)].concat();
        std::fs::write(dir.join("test_batch.bin"), content).unwrap();
    }

    #[test]
    fn the_batches_of_cifar10_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&inner).unwrap();
        folder10(&inner);
        for dir in [dir.path(), &inner] {
            let (train, test) = cifar10_folder(dir).unwrap();
            assert_eq!(train.targets(), [1, 2, 3, 4, 5]);
            assert_eq!(test.targets(), [9, 0]);
            assert_eq!((train.shape(), train.n_classes()), ([3, 32, 32], 10));
            let Pixels::U8(pixels) = train.pixels() else {
                panic!("bytes stay bytes")
            };
            assert_eq!(pixels[PIXELS + 1023..PIXELS + 1026], [20, 7, 20]);
        }
    }

    #[test]
    fn the_target_of_cifar100_is_the_fine_label() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train.bin"), record(&[19, 99], 3)).unwrap();
        std::fs::write(dir.path().join("test.bin"), record(&[0, 42], 3)).unwrap();
        let (train, test) = cifar100_folder(dir.path()).unwrap();
        assert_eq!((train.targets(), test.targets()), (&[99][..], &[42][..]));
        assert_eq!(train.n_classes(), 100);
        let Pixels::U8(pixels) = train.pixels() else {
            panic!("bytes stay bytes")
        };
        assert_eq!(pixels[1023..1026], [3, 7, 3]);
    }

    #[test]
    fn damage_is_named() {
        for (content, wanted) in [
            (Vec::new(), "found 0 bytes"),
            (record(&[1], 0)[1..].to_vec(), "found 3072 bytes"),
            (record(&[10], 0), "label 10 in record 0"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            folder10(dir.path());
            std::fs::write(dir.path().join("data_batch_3.bin"), content).unwrap();
            let message = cifar10_folder(dir.path()).unwrap_err().to_string();
            assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
            assert!(message.contains("data_batch_3.bin"), "{message:?}");
            assert!(message.contains("unforget data get cifar10"), "{message:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let error = cifar100_folder(dir.path()).unwrap_err();
        assert!(matches!(error, Error::DataMissing(_)), "{error}");
    }
}
