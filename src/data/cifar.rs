//! The binary version of CIFAR-10 and CIFAR-100.
//!
//! Records without a header: one label byte (CIFAR-100: the coarse label, then the fine one), then
//! 32 x 32 bytes of red, of green, of blue, row by row (A. Krizhevsky, "Learning multiple layers
//! of features from tiny images", 2009; "Binary version" of its data page).

use super::dataset::first_outside;
use super::read::{FETCH_AGAIN, open};
use super::{Dataset, Images, Pixels, TrainTest};
use crate::{Error, Result};
use std::io::Read;
use std::path::Path;

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// Loads CIFAR-10 from a folder with `data_batch_1.bin` to `data_batch_5.bin` and
/// `test_batch.bin`.
///
/// # Errors
/// [`Error::DataMissing`] if a file is not there; [`Error::Format`] if one is empty, not a whole
/// number of records or has a label above 9; [`Error::Io`] if one cannot be read.
pub fn load_cifar10(dir: impl AsRef<Path>) -> Result<TrainTest> {
    let dir = dir.as_ref();
    let train: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}.bin")).collect();
    let train: Vec<&str> = train.iter().map(String::as_str).collect();
    Ok(TrainTest {
        train: load("cifar10 train", dir, &train, &[10])?,
        test: load("cifar10 test", dir, &["test_batch.bin"], &[10])?,
    })
}

/// Loads CIFAR-100 with its 100 fine labels from a folder with `train.bin` and `test.bin`.
///
/// # Errors
/// As [`load_cifar10`], for a coarse label above 19 or a fine label above 99.
pub fn load_cifar100(dir: impl AsRef<Path>) -> Result<TrainTest> {
    let dir = dir.as_ref();
    Ok(TrainTest {
        train: load("cifar100 train", dir, &["train.bin"], &[20, 100])?,
        test: load("cifar100 test", dir, &["test.bin"], &[20, 100])?,
    })
}

/// Loads `files` one after the other. Each record starts with one label byte per entry of
/// `n_classes`; the last of them is the label of the sample.
fn load(name: &str, dir: &Path, files: &[&str], n_classes: &[usize]) -> Result<Dataset> {
    let record = n_classes.len() + PIXELS;
    let mut pixels = Vec::new();
    let mut targets = Vec::new();
    for file in files {
        let path = dir.join(file);
        if !path.is_file() {
            return Err(Error::DataMissing(format!(
                "{}: there is no {file} in this folder; fetch the binary version of the data set",
                dir.display()
            )));
        }
        let mut bytes = Vec::new();
        open(&path)?.read_to_end(&mut bytes).map_err(|source| Error::io("read", &path, source))?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            let expected = format!("one or more records of {record} bytes");
            let found = format!("{} bytes", bytes.len());
            return Err(Error::format(&path, expected, found, FETCH_AGAIN));
        }
        for (i, record) in bytes.chunks_exact(record).enumerate() {
            let (labels, image) = record.split_at(n_classes.len());
            for (&label, &n) in labels.iter().zip(n_classes) {
                if first_outside(&[label.into()], n).is_some() {
                    let found = format!("label {label} in record {i}");
                    let expected = format!("labels below {n}");
                    return Err(Error::format(&path, expected, found, FETCH_AGAIN));
                }
            }
            targets.extend(labels.last().map(|&label| u32::from(label)));
            pixels.extend_from_slice(image);
        }
    }
    let images = Images::new([3, SIDE, SIDE], Pixels::U8(pixels.into()))?;
    Dataset::new(name, images, targets, n_classes.last().copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::PixelSlice;
    use std::fs;

    /// Records whose image bytes all equal `fill`.
    fn records(records: &[(&[u8], u8)]) -> Vec<u8> {
        records.iter().flat_map(|(labels, fill)| [labels, &[*fill; PIXELS][..]].concat()).collect()
    }

    #[test]
    fn cifar10_batches_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        for i in 1..=5u8 {
            let mut content = records(&[(&[i], 10 * i), (&[i + 1], 10 * i + 1)]);
            content[1 + 2 * SIDE * SIDE] = 99; // the first blue byte
            fs::write(dir.path().join(format!("data_batch_{i}.bin")), content).unwrap();
        }
        let test = dir.path().join("test_batch.bin");
        fs::write(&test, records(&[(&[9], 7)])).unwrap();
        let data = load_cifar10(dir.path()).unwrap();
        assert_eq!(data.train.targets(), [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]);
        assert_eq!((data.train.shape(), data.train.n_classes()), ([3, 32, 32], 10));
        let PixelSlice::U8(image) = data.train.images().get(4) else { panic!() };
        assert_eq!((image[0], image[2 * 1024], image[2 * 1024 + 1]), (30, 99, 30));
        assert_eq!(data.test.targets(), [9]);

        fs::write(&test, records(&[(&[3], 0), (&[10], 0)])).unwrap();
        let error = load_cifar10(dir.path()).unwrap_err().to_string();
        assert!(error.contains("labels below 10, found label 10 in record 1"), "{error}");
        for content in [&[][..], &[0; PIXELS]] {
            fs::write(&test, content).unwrap();
            let error = load_cifar10(dir.path()).unwrap_err();
            assert!(matches!(error, Error::Format { .. }), "{error}");
        }
        fs::remove_file(&test).unwrap();
        let error = load_cifar10(dir.path()).unwrap_err();
        assert!(matches!(error, Error::DataMissing(_)), "{error}");
    }

    #[test]
    fn cifar100_takes_the_fine_label_and_checks_both() {
        let dir = tempfile::tempdir().unwrap();
        let (train, test) = (dir.path().join("train.bin"), dir.path().join("test.bin"));
        fs::write(&train, records(&[(&[19, 99], 1), (&[0, 42], 2)])).unwrap();
        fs::write(&test, records(&[(&[4, 5], 3)])).unwrap();
        let data = load_cifar100(dir.path()).unwrap();
        assert_eq!((data.train.targets(), data.test.targets()), (&[99, 42][..], &[5][..]));
        assert_eq!(data.train.images().get(1), PixelSlice::U8(&[2; PIXELS]));
        for bad in [[20, 5], [3, 100]] {
            fs::write(&test, records(&[(&bad, 0)])).unwrap();
            assert!(load_cifar100(dir.path()).is_err(), "{bad:?}");
        }
    }
}
