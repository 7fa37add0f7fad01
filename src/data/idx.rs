//! The IDX files of MNIST and of the data sets that copied its format.
//!
//! All integers are big-endian `u32`. Images: magic 2051, count, rows, columns, then one byte per
//! pixel, row by row. Labels: magic 2049, count, then one byte each (Y. LeCun, C. Cortes and
//! C. Burges, "The MNIST database of handwritten digits"). Files may be gzip-compressed; that is
//! read off the content, not the name.

use super::Dataset;
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

const IMAGES_MAGIC: u32 = 2051;
const LABELS_MAGIC: u32 = 2049;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const N_CLASSES: u32 = 10;
/// The file whose presence says that a folder is meant to hold the data set.
const FIRST_FILE: &str = "train-images-idx3-ubyte";
const REMEDY: &str = "the file is damaged or another, download it again with `unforget data get \
                      mnist` (or fashion-mnist)";

/// How the training labels of the two data sets begin whose files have the same names.
const FIRST_LABELS: [(&str, [u32; 10]); 2] = [
    ("mnist", [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]),
    ("fashion-mnist", [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]),
];

/// Images as an IDX file holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxImages {
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Image after image, row by row: a multiple of `height * width` bytes.
    pub pixels: Vec<u8>,
}

impl IdxImages {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.pixels.len() / (self.height * self.width)
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }
}

/// Reads an IDX file of images, plain or gzip-compressed.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if the magic number is another, the
/// file ends early or goes on after the last image, or there is no image or no pixel.
pub fn read_images(path: &Path) -> Result<IdxImages> {
    let mut file = Idx::open(path)?;
    let [magic, n, height, width] = file.header()?;
    file.check_magic(magic, IMAGES_MAGIC, "images")?;
    if n == 0 || height == 0 || width == 0 {
        let found = format!("{n} images of {height} x {width}");
        return Err(file.wrong("at least one image of at least 1 x 1 pixels", found));
    }
    // Three u32 can overflow a u64, so the size of a lying header is computed with room to spare.
    let bytes = u128::from(n) * u128::from(height) * u128::from(width);
    let pixels = file.body(bytes, &format!("{n} images of {height} x {width} bytes"))?;
    // An image was read, so its height and width are no larger than what memory holds.
    Ok(IdxImages {
        height: height as usize,
        width: width as usize,
        pixels,
    })
}

/// Reads an IDX file of labels, plain or gzip-compressed.
///
/// # Errors
/// As [`read_images`]; also [`Error::Format`] for a label that is not below `n_classes`.
pub fn read_labels(path: &Path, n_classes: u32) -> Result<Vec<u32>> {
    let mut file = Idx::open(path)?;
    let [magic, n] = file.header()?;
    file.check_magic(magic, LABELS_MAGIC, "labels")?;
    let labels = file.body(n.into(), &format!("{n} labels"))?;
    let targets: Vec<u32> = labels.into_iter().map(u32::from).collect();
    match targets.iter().position(|&target| target >= n_classes) {
        None => Ok(targets),
        Some(at) => Err(file.wrong(
            format!("labels from 0 to {}", n_classes.saturating_sub(1)),
            format!("label {} at position {at}", targets[at]),
        )),
    }
}

/// Reads the four files of MNIST, or of a data set in its format with ten classes, from `dir`:
/// (training images, test images), under the given `name`.
///
/// The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`
/// and `t10k-labels-idx1-ubyte`, each plain or with `.gz`. They may lie in `dir` itself or, if the
/// training images are not there, in the folder that torchvision (`MNIST/raw`) or this program
/// (`mnist`) would make for the data set inside it; `name` "fashion-mnist" looks into
/// `FashionMNIST/raw` and `fashion-mnist` instead.
///
/// # Errors
/// [`Error::DataMissing`] if a file is in none of these; otherwise as [`read_images`] and
/// [`read_labels`], and [`Error::Format`] if images and labels differ in number, or if `name` is
/// "mnist" but the first labels are those of Fashion-MNIST, or the other way round.
pub fn mnist_folder(dir: &Path, name: &str) -> Result<(Dataset, Dataset)> {
    let dir = folder_with_files(dir, name);
    let train = read_pair(&dir, name, "train")?;
    check_identity(&dir, name, &train)?;
    let test = read_pair(&dir, name, "t10k")?;
    if train.shape() != test.shape() {
        let ([_, h, w], [_, test_h, test_w]) = (train.shape(), test.shape());
        return Err(Error::format(
            find(&dir, name, "t10k-images-idx3-ubyte")?,
            format!("images of {h} x {w} pixels, as in the training file"),
            format!("{test_h} x {test_w}"),
            remedy(name),
        ));
    }
    Ok((train, test))
}

/// Refuses the one of MNIST and Fashion-MNIST where the other was asked for.
fn check_identity(dir: &Path, name: &str, train: &Dataset) -> Result<()> {
    let is = |(known, labels): &&(&str, [u32; 10])| {
        *known != name && train.targets().starts_with(labels)
    };
    let named = FIRST_LABELS.iter().any(|(known, _)| *known == name);
    match FIRST_LABELS.iter().find(is).filter(|_| named) {
        None => Ok(()),
        Some((other, _)) => Err(Error::format(
            find(dir, name, "train-labels-idx1-ubyte")?,
            format!("the labels of {name}"),
            format!("those of {other}"),
            format!(
                "ask for {other}, or give a folder of {name} (`unforget data get {name}` downloads it)"
            ),
        )),
    }
}

/// Whether [`mnist_folder`] finds its first file in or under `dir`.
pub(super) fn is_folder(dir: &Path, name: &str) -> bool {
    existing(&folder_with_files(dir, name), FIRST_FILE).is_some()
}

/// The folder inside `dir` that holds the files of data set `name`; `dir` itself if none does.
fn folder_with_files(dir: &Path, name: &str) -> PathBuf {
    let inner: &[&str] = match name {
        "mnist" => &["MNIST/raw", "mnist"],
        "fashion-mnist" => &["FashionMNIST/raw", "fashion-mnist"],
        _ => &[],
    };
    std::iter::once(dir.to_path_buf())
        .chain(inner.iter().map(|inner| dir.join(inner)))
        .find(|dir| existing(dir, FIRST_FILE).is_some())
        .unwrap_or_else(|| dir.to_path_buf())
}

fn read_pair(dir: &Path, name: &str, part: &str) -> Result<Dataset> {
    let images_path = find(dir, name, &format!("{part}-images-idx3-ubyte"))?;
    let labels_path = find(dir, name, &format!("{part}-labels-idx1-ubyte"))?;
    let images = read_images(&images_path)?;
    let targets = read_labels(&labels_path, N_CLASSES)?;
    if images.len() != targets.len() {
        return Err(Error::format(
            labels_path,
            format!("one label for each of {} images", images.len()),
            format!("{} labels", targets.len()),
            remedy(name),
        ));
    }
    let shape = [1, images.height, images.width];
    Dataset::from_u8(name, shape, images.pixels, targets, N_CLASSES as usize)
}

/// `dir/file` or `dir/file.gz`, whichever exists; the plain one if both do.
fn existing(dir: &Path, file: &str) -> Option<PathBuf> {
    [dir.join(file), dir.join(format!("{file}.gz"))]
        .into_iter()
        .find(|path| path.is_file())
}

fn find(dir: &Path, name: &str, file: &str) -> Result<PathBuf> {
    existing(dir, file).ok_or_else(|| {
        Error::DataMissing(format!(
            "{}: expected {file} or {file}.gz, found neither; {}",
            dir.display(),
            remedy(name)
        ))
    })
}

fn remedy(name: &str) -> String {
    match name {
        "mnist" | "fashion-mnist" => {
            format!("download it again with `unforget data get {name}`")
        }
        _ => "copy it again from where it came from".into(),
    }
}

/// An IDX file being read.
struct Idx<'a> {
    path: &'a Path,
    reader: Box<dyn Read>,
}

impl<'a> Idx<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        let mut file = BufReader::new(file);
        let start = file
            .fill_buf()
            .map_err(|error| Error::io("read", path, error))?;
        let reader: Box<dyn Read> = if start.starts_with(&GZIP_MAGIC) {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        Ok(Idx { path, reader })
    }

    fn header<const N: usize>(&mut self) -> Result<[u32; N]> {
        let expected = format!("a header of {} bytes", 4 * N);
        let header = self.read_up_to(4 * N as u64)?;
        if header.len() < 4 * N {
            return Err(self.wrong(expected, format!("the end after {} bytes", header.len())));
        }
        let mut words = header.as_chunks::<4>().0.iter();
        Ok(std::array::from_fn(|_| {
            words.next().map_or(0, |&word| u32::from_be_bytes(word))
        }))
    }

    fn check_magic(&self, magic: u32, expected: u32, what: &str) -> Result<()> {
        if magic == expected {
            return Ok(());
        }
        let kind = match magic {
            IMAGES_MAGIC => " (a file of images)",
            LABELS_MAGIC => " (a file of labels)",
            _ => "",
        };
        Err(self.wrong(
            format!("an IDX file of {what}, magic {expected}"),
            format!("{magic}{kind}"),
        ))
    }

    /// Exactly the `bytes` that follow the header: no fewer, and nothing after them.
    fn body(&mut self, bytes: u128, what: &str) -> Result<Vec<u8>> {
        // The file decides how much is read; one byte more than announced shows a file too long.
        let most = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(1);
        let content = self.read_up_to(most)?;
        match (content.len() as u128).cmp(&bytes) {
            std::cmp::Ordering::Equal => Ok(content),
            std::cmp::Ordering::Less => {
                Err(self.wrong(what, format!("the end after {} bytes", content.len())))
            }
            std::cmp::Ordering::Greater => Err(self.wrong(what, "more bytes after them")),
        }
    }

    /// The next bytes of the file, at most `most`; the memory grows with what is really there.
    fn read_up_to(&mut self, most: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        match (&mut self.reader).take(most).read_to_end(&mut content) {
            Ok(_) => Ok(content),
            // What gzip reports of a file that was cut or changed.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData
                ) =>
            {
                Err(self.wrong("a whole gzip file", format!("damage ({error})")))
            }
            Err(error) => Err(Error::io("read", self.path, error)),
        }
    }

    fn wrong(&self, expected: impl ToString, found: impl ToString) -> Error {
        Error::format(self.path, expected, found, REMEDY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pixels;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn header(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn images(n: u32) -> Vec<u8> {
        let mut file = header(&[2051, n, 2, 3]);
        file.extend((0..6 * n).map(|i| i as u8));
        file
    }

    fn labels(labels: &[u8]) -> Vec<u8> {
        let mut file = header(&[2049, labels.len() as u32]);
        file.extend(labels);
        file
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A folder with three training and two test images.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        dir
    }

    fn fill(dir: &Path) {
        let write = |name: &str, content: &[u8]| std::fs::write(dir.join(name), content).unwrap();
        write("train-images-idx3-ubyte", &images(3));
        write("train-labels-idx1-ubyte.gz", &gzip(&labels(&[7, 0, 9])));
        write("t10k-images-idx3-ubyte.gz", &gzip(&images(2)));
        write("t10k-labels-idx1-ubyte", &labels(&[1, 2]));
    }

    #[test]
    fn plain_and_compressed_files_are_read() {
        let dir = folder();
        let (train, test) = mnist_folder(dir.path(), "mnist").unwrap();
        assert_eq!((train.len(), test.len()), (3, 2));
        assert_eq!(train.shape(), [1, 2, 3]);
        assert_eq!(train.targets(), [7, 0, 9]);
        assert_eq!(test.targets(), [1, 2]);
        let Pixels::U8(pixels) = test.pixels() else {
            panic!("bytes stay bytes")
        };
        assert_eq!(pixels[..], (0..12).collect::<Vec<u8>>());
    }

    #[test]
    fn the_folders_of_torchvision_are_found() {
        for (name, inner) in [
            ("mnist", "MNIST/raw"),
            ("mnist", "mnist"),
            ("fashion-mnist", "FashionMNIST/raw"),
            ("fashion-mnist", "fashion-mnist"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join(inner)).unwrap();
            fill(&dir.path().join(inner));
            assert_eq!(
                mnist_folder(dir.path(), name).unwrap().0.len(),
                3,
                "{name} in {inner}"
            );
        }
    }

    /// Each file that is wrong in one way is refused with a message of one line that says how.
    #[test]
    fn damage_is_named() {
        let train_images = "train-images-idx3-ubyte";
        let mut long = images(3);
        long.push(0);
        let cases: [(&str, Vec<u8>, &str); 11] = [
            (
                train_images,
                images(3)[..20].to_vec(),
                "the end after 4 bytes",
            ),
            (
                train_images,
                images(3)[..9].to_vec(),
                "a header of 16 bytes",
            ),
            (train_images, long, "more bytes after them"),
            (
                train_images,
                labels(&[1, 2, 3, 4, 5, 6, 7, 8]),
                "2049 (a file of labels)",
            ),
            (train_images, header(&[77, 0, 1, 1]), "found 77;"),
            (
                train_images,
                header(&[2051, 3, 0, 28]),
                "found 3 images of 0 x 28",
            ),
            (
                train_images,
                header(&[2051, u32::MAX, u32::MAX, u32::MAX]),
                "the end after 0 bytes",
            ),
            (train_images, Vec::new(), "the end after 0 bytes"),
            (
                train_images,
                gzip(&images(3))[..25].to_vec(),
                "a whole gzip file",
            ),
            (
                "t10k-labels-idx1-ubyte",
                labels(&[1, 10]),
                "label 10 at position 1",
            ),
            (
                "t10k-labels-idx1-ubyte",
                labels(&[1]),
                "one label for each of 2 images",
            ),
        ];
        for (name, content, wanted) in cases {
            let dir = folder();
            std::fs::write(dir.path().join(name), content).unwrap();
            let message = mnist_folder(dir.path(), "mnist").unwrap_err().to_string();
            assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
            assert!(
                message.contains(name),
                "the file is not named in {message:?}"
            );
            assert!(
                message.contains("unforget data get"),
                "no remedy in {message:?}"
            );
            assert!(!message.contains('\n'), "more than one line: {message:?}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = folder();
        std::fs::remove_file(dir.path().join("t10k-labels-idx1-ubyte")).unwrap();
        let error = mnist_folder(dir.path(), "mnist").unwrap_err();
        assert!(matches!(error, Error::DataMissing(_)));
        assert!(
            error.to_string().contains("t10k-labels-idx1-ubyte.gz"),
            "{error}"
        );
    }

    /// Nothing in the files may bring the program down, whatever the header says.
    #[test]
    fn empty_images_of_any_claimed_size_are_no_panic() {
        let dir = folder();
        for claim in [[0, 1, 1], [0, u32::MAX, u32::MAX]] {
            let [n, h, w] = claim;
            std::fs::write(
                dir.path().join("train-images-idx3-ubyte"),
                header(&[2051, n, h, w]),
            )
            .unwrap();
            assert!(mnist_folder(dir.path(), "mnist").is_err(), "{claim:?}");
        }
    }

    #[test]
    fn mnist_and_its_double_are_told_apart() {
        for (name, other) in [("mnist", "fashion-mnist"), ("fashion-mnist", "mnist")] {
            let dir = folder();
            let (_, first) = FIRST_LABELS
                .iter()
                .find(|(known, _)| *known == name)
                .unwrap();
            let first: Vec<u8> = first.iter().map(|&label| label as u8).collect();
            std::fs::write(dir.path().join("train-images-idx3-ubyte"), images(10)).unwrap();
            std::fs::write(dir.path().join("train-labels-idx1-ubyte"), labels(&first)).unwrap();
            assert!(mnist_folder(dir.path(), name).is_ok());
            assert!(mnist_folder(dir.path(), "another").is_ok());
            let message = mnist_folder(dir.path(), other).unwrap_err().to_string();
            for part in [
                "train-labels-idx1-ubyte",
                &format!("the labels of {other}, found those of {name}"),
                &format!("ask for {name}"),
                &format!("unforget data get {other}"),
            ] {
                assert!(message.contains(part), "{part:?} is not in {message:?}");
            }
        }
    }
}
