//! The IDX format of MNIST and its relatives.
//!
//! Big endian: two zero bytes, the element type (8: unsigned byte), the number of dimensions, the
//! dimensions as 32-bit integers, the elements (Y. LeCun, C. Cortes, C. Burges, "The MNIST
//! database", "file formats").

use super::dataset::first_outside;
use super::read::{FETCH_AGAIN, open, read_head, read_rest};
use super::{Dataset, Images, Pixels, TrainTest};
use crate::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The content of an IDX file of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The dimensions, slowest first.
    pub dims: Vec<usize>,
    /// The elements, row by row.
    pub data: Vec<u8>,
}

/// Reads an IDX file of unsigned bytes with up to four dimensions, plain or compressed with gzip.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is of another kind, cut
/// short, damaged, or goes on after its end.
pub fn read_idx(path: impl AsRef<Path>) -> Result<Idx> {
    let path = path.as_ref();
    parse(&mut *open(path)?, path)
}

/// Parses one IDX file; `path` is for messages.
pub(super) fn parse(reader: &mut dyn Read, path: &Path) -> Result<Idx> {
    let magic: [u8; 4] = read_head(reader, "an IDX magic number", path)?;
    let rank = match magic {
        [0, 0, 8, rank @ 1..=4] => usize::from(rank),
        _ => {
            let found = format!("{:#010x}", u32::from_be_bytes(magic));
            let expected = "the IDX magic number of bytes, 0x00000801 to 0x00000804";
            return Err(Error::format(path, expected, found, FETCH_AGAIN));
        }
    };
    let mut dims = Vec::with_capacity(rank);
    for _ in 0..rank {
        let dim: [u8; 4] = read_head(reader, "an IDX header", path)?;
        dims.push(u32::from_be_bytes(dim) as usize);
    }
    let len = dims.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim as u64));
    let Some(len) = len.filter(|&len| len < u64::MAX) else {
        return Err(Error::format(path, "a possible size", format!("{dims:?}"), FETCH_AGAIN));
    };
    let data = read_rest(reader, len, &format!("elements of size {dims:?}"), path)?;
    Ok(Idx { dims, data })
}

/// Loads a folder laid out like MNIST: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
/// `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, each plain or with `.gz` (the plain file is
/// taken if both are there; `train-images.idx3-ubyte` is accepted as well).
///
/// # Errors
/// [`Error::DataMissing`] if a file is not there; those of [`read_idx`]; [`Error::Format`] if the
/// numbers of images and labels differ, there is none, or a label is not below `n_classes`.
pub fn load_idx_folder(dir: impl AsRef<Path>, name: &str, n_classes: usize) -> Result<TrainTest> {
    let dir = dir.as_ref();
    let load = |part: &str, title: &str| {
        let images = find(dir, part, "images", 3)?;
        let labels = find(dir, part, "labels", 1)?;
        let parts = (read_idx(&images)?, read_idx(&labels)?);
        labelled(&format!("{name} {title}"), parts.0, &images, parts.1, &labels, n_classes)
    };
    Ok(TrainTest { train: load("train", "train")?, test: load("t10k", "test")? })
}

/// Whether `dir` holds the training images of a folder laid out like MNIST.
pub(super) fn is_idx_folder(dir: &Path) -> bool {
    find(dir, "train", "images", 3).is_ok()
}

/// The file of `dir` that holds the images or labels of a part.
fn find(dir: &Path, part: &str, what: &str, rank: usize) -> Result<PathBuf> {
    ["-idx", ".idx"]
        .iter()
        .flat_map(|joint| ["", ".gz"].map(|end| format!("{part}-{what}{joint}{rank}-ubyte{end}")))
        .map(|file| dir.join(file))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::DataMissing(format!(
                "{}: there is no {part}-{what}-idx{rank}-ubyte or \
                 {part}-{what}-idx{rank}-ubyte.gz in this folder; fetch the file",
                dir.display()
            ))
        })
}

/// The data set of one images file and one labels file.
pub(super) fn labelled(
    name: &str,
    images: Idx,
    images_path: &Path,
    labels: Idx,
    labels_path: &Path,
    n_classes: usize,
) -> Result<Dataset> {
    let &[n, height, width] = images.dims.as_slice() else {
        let found = format!("{} dimensions", images.dims.len());
        return Err(Error::format(images_path, "images (3 dimensions)", found, FETCH_AGAIN));
    };
    if n * height * width == 0 {
        let found = format!("{n} images of {height} x {width}");
        return Err(Error::format(images_path, "at least one pixel", found, FETCH_AGAIN));
    }
    if labels.dims != [n] {
        let expected = format!("{n} labels, one for each image of {}", images_path.display());
        let found = format!("the size {:?}", labels.dims);
        let remedy = "take both files from the same source";
        return Err(Error::format(labels_path, expected, found, remedy));
    }
    let targets: Vec<u32> = labels.data.iter().map(|&label| u32::from(label)).collect();
    if let Some(at) = first_outside(&targets, n_classes) {
        let expected = format!("labels below {n_classes}");
        let found = format!("label {} for sample {at}", targets[at]);
        return Err(Error::format(labels_path, expected, found, FETCH_AGAIN));
    }
    let images = Images::new([1, height, width], Pixels::U8(images.data.into()))?;
    Dataset::new(name, images, targets, n_classes)
}
