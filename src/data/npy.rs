//! NumPy arrays: `.npy` files and `.npz` archives.
//!
//! Layout: NumPy Enhancement Proposal 1, "A simple file format for NumPy arrays"; an `.npz` is a
//! zip archive of such files. What is read is what can hold labelled images: see [`npz_file`].

use super::Dataset;
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Far above any real header, which names one type and a few dimensions.
const MAX_HEADER: usize = 1 << 16;
/// Far above any real set of classes; a larger label is a mistake that would fill the memory.
const MAX_LABEL: i128 = u16::MAX as i128;
const REMEDY: &str = "save x as uint8 or float32 images and y as integers with numpy.save or \
                      numpy.savez(file, x=x, y=y)";

/// Reads images and labels from the arrays `x` and `y` of an `.npz` archive.
///
/// `x` is `uint8` (255 stands for 1.0) or `float32` (taken as it is), C-ordered, one of
///
/// * `[N, H, W]`: one channel;
/// * `[N, C, H, W]` if the second dimension is 1 or 3;
/// * `[N, H, W, C]` if the second dimension is not, and the last one is 1 or 3.
///
/// `y` is any integer type, `[N]` or `[N, 1]`, from 0 to 65535; the number of classes is the
/// largest label plus one.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is no such archive, ends
/// early, or its arrays are not as above.
pub fn npz_file(path: &Path, name: &str) -> Result<Dataset> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let bad = |found: String| Error::format(path, "an .npz archive with x and y", found, REMEDY);
    let mut archive = zip::ZipArchive::new(BufReader::new(file))
        .map_err(|error| bad(format!("no archive ({error})")))?;
    let mut member = |member: &str| {
        let entry = archive
            .by_name(member)
            .map_err(|_| bad(format!("no {member} in it")))?;
        Array::read(entry, path)
    };
    let (x, y) = (member("x.npy")?, member("y.npy")?);
    dataset(name, (path, x), (path, y))
}

/// Reads images and labels from two `.npy` files, under the rules of [`npz_file`].
///
/// # Errors
/// As [`npz_file`].
pub fn npy_pair(x: &Path, y: &Path, name: &str) -> Result<Dataset> {
    let read = |path: &Path| {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        Array::read(BufReader::new(file), path)
    };
    dataset(name, (x, read(x)?), (y, read(y)?))
}

fn dataset(
    name: &str,
    (x_path, x): (&Path, Array),
    (y_path, y): (&Path, Array),
) -> Result<Dataset> {
    let (n, layout) = Layout::of(&x.shape).ok_or_else(|| {
        let expected = "x of [N, H, W], [N, C, H, W] or [N, H, W, C] with C = 1 or 3 and no 0";
        Error::format(x_path, expected, format!("{:?}", x.shape), REMEDY)
    })?;
    let targets = y.labels(y_path)?;
    if targets.len() != n {
        let found = format!("{} labels", targets.len());
        return Err(Error::format(
            y_path,
            format!("one label for each of {n} images"),
            found,
            REMEDY,
        ));
    }
    let n_classes = targets.iter().max().map_or(0, |&label| label as usize + 1);
    let shape = [layout.channels, layout.height, layout.width];
    match x.descr.as_str() {
        "|u1" => Dataset::from_u8(name, shape, layout.planes(x.data), targets, n_classes),
        "<f4" | ">f4" => {
            let swap = x.descr.starts_with('>');
            let words = x.data.as_chunks::<4>().0.iter();
            let values = words.map(|&w| {
                if swap {
                    f32::from_be_bytes(w)
                } else {
                    f32::from_le_bytes(w)
                }
            });
            Dataset::from_f32(
                name,
                shape,
                layout.planes(values.collect()),
                targets,
                n_classes,
            )
        }
        other => Err(Error::format(
            x_path,
            "x of uint8 or float32",
            format!("type {other}"),
            REMEDY,
        )),
    }
}

/// Where the channels of a stored image are.
struct Layout {
    channels: usize,
    height: usize,
    width: usize,
    channels_last: bool,
}

impl Layout {
    /// The number of images and their layout, if `shape` is one of those that are read.
    fn of(shape: &[usize]) -> Option<(usize, Self)> {
        let (n, channels, height, width, channels_last) = match *shape {
            [n, h, w] => (n, 1, h, w, false),
            [n, c @ (1 | 3), h, w] => (n, c, h, w, false),
            [n, h, w, c @ (1 | 3)] => (n, c, h, w, true),
            _ => return None,
        };
        if n == 0 || height == 0 || width == 0 {
            return None;
        }
        Some((
            n,
            Layout {
                channels,
                height,
                width,
                channels_last,
            },
        ))
    }

    /// The values channel by channel, as a [`Dataset`] wants them.
    fn planes<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        if !self.channels_last || self.channels == 1 {
            return values;
        }
        let mut planes = Vec::with_capacity(values.len());
        for image in values.chunks_exact(self.height * self.width * self.channels) {
            for channel in 0..self.channels {
                planes.extend(image.iter().skip(channel).step_by(self.channels));
            }
        }
        planes
    }
}

/// An array as its file holds it.
struct Array {
    /// NumPy's name of the type: byte order, kind, bytes per element.
    descr: String,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Array {
    fn read(mut reader: impl Read, path: &Path) -> Result<Self> {
        let bad = |expected: &str, found: String| Error::format(path, expected, found, REMEDY);
        // Memory grows with what arrives, never with what a header promises.
        let mut next = |most: u64| {
            let mut bytes = Vec::new();
            match (&mut reader).take(most).read_to_end(&mut bytes) {
                Ok(_) => Ok(bytes),
                Err(error) => Err(bad("a whole array", format!("damage ({error})"))),
            }
        };
        let start = next(8)?;
        let length_bytes = match start[..] {
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _] => 2,
            [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _] => 4,
            _ => return Err(bad("a NumPy array", "another kind of file".into())),
        };
        let length = next(length_bytes)?;
        let length = length
            .iter()
            .rev()
            .fold(0usize, |n, &byte| n << 8 | usize::from(byte));
        let header = next(length.min(MAX_HEADER) as u64)?;
        let header = String::from_utf8_lossy(&header);
        let (descr, shape) = parse(&header)
            .map_err(|expected| bad(expected, format!("header {:?}", header.trim_end())))?;
        let size: u128 = descr
            .get(2..)
            .and_then(|size| size.parse::<u16>().ok())
            .unwrap_or(0)
            .into();
        let bytes = shape
            .iter()
            .try_fold(size, |n, &dim| n.checked_mul(dim as u128));
        let bytes = bytes.unwrap_or(u128::MAX);
        let data = next(u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(1))?;
        if size == 0 || data.len() as u128 != bytes {
            let expected = format!("an array {shape:?} of type {descr}, {bytes} bytes");
            return Err(bad(
                &expected,
                format!("another number of bytes ({} read)", data.len()),
            ));
        }
        Ok(Array { descr, shape, data })
    }

    fn labels(&self, path: &Path) -> Result<Vec<u32>> {
        let bad = |expected: &str, found| Error::format(path, expected, found, REMEDY);
        if !matches!(self.shape[..], [_] | [_, 1]) {
            return Err(bad("y of [N] or [N, 1]", format!("{:?}", self.shape)));
        }
        let (order, kind) = (self.descr.get(..1), self.descr.get(1..2));
        let size: usize = self
            .descr
            .get(2..)
            .and_then(|size| size.parse().ok())
            .unwrap_or(0);
        let (Some("i" | "u"), 1 | 2 | 4 | 8) = (kind, size) else {
            return Err(bad("y of an integer type", format!("type {}", self.descr)));
        };
        let label = |(at, bytes): (usize, &[u8])| {
            let mut bytes = bytes.to_vec();
            if order != Some(">") {
                bytes.reverse();
            }
            let unsigned = bytes
                .iter()
                .fold(0i128, |n, &byte| n << 8 | i128::from(byte));
            let negative = kind == Some("i") && bytes[0] >= 0x80;
            let label = if negative {
                unsigned - (1i128 << (8 * size))
            } else {
                unsigned
            };
            if !(0..=MAX_LABEL).contains(&label) {
                let found = format!("label {label} at position {at}");
                return Err(bad("labels from 0 to 65535", found));
            }
            Ok(label as u32)
        };
        self.data
            .chunks_exact(size)
            .enumerate()
            .map(label)
            .collect()
    }
}

/// Type and shape from an array's header, a Python dictionary such as
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 28, 28), }`; or what it should have held.
fn parse(header: &str) -> std::result::Result<(String, Vec<usize>), &'static str> {
    let value = |key: &str| {
        let (_, rest) = header.split_once(key)?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let descr = value("'descr'").and_then(|rest| rest.strip_prefix('\'')?.split_once('\''));
    let (descr, _) = descr.ok_or("one simple type")?;
    if !value("'fortran_order'").is_some_and(|rest| rest.starts_with("False")) {
        return Err("C order (numpy.ascontiguousarray)");
    }
    let shape = value("'shape'").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let (shape, _) = shape.ok_or("a shape")?;
    let dims = shape
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty());
    let dims: std::result::Result<Vec<usize>, _> = dims.map(str::parse).collect();
    Ok((
        descr.to_string(),
        dims.map_err(|_| "a shape of whole numbers")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pixels;
    use ndarray::{Array as NdArray, array};
    use ndarray_npy::{NpzWriter, write_npy};

    #[test]
    fn an_archive_of_bytes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.npz");
        let x = NdArray::from_iter(0..12u8)
            .into_shape_with_order((2, 2, 3))
            .unwrap();
        for compressed in [false, true] {
            let file = File::create(&path).unwrap();
            let mut npz = if compressed {
                NpzWriter::new_compressed(file)
            } else {
                NpzWriter::new(file)
            };
            npz.add_array("x", &x).unwrap();
            npz.add_array("y", &array![5i64, 0]).unwrap();
            npz.finish().unwrap();
            let data = npz_file(&path, "d").unwrap();
            assert_eq!((data.shape(), data.n_classes()), ([1, 2, 3], 6));
            assert_eq!(data.targets(), [5, 0]);
            assert_eq!(data.pixels(), &Pixels::U8((0..12).collect()));
        }
    }

    #[test]
    fn channels_are_found_first_or_last() {
        let dir = tempfile::tempdir().unwrap();
        let (x, y) = (dir.path().join("x.npy"), dir.path().join("y.npy"));
        write_npy(&y, &array![[1u8], [2]]).unwrap();
        let values = NdArray::from_iter((0..24).map(|i| i as f32));
        write_npy(
            &x,
            &values.clone().into_shape_with_order((2, 3, 2, 2)).unwrap(),
        )
        .unwrap();
        let first = npy_pair(&x, &y, "d").unwrap();
        assert_eq!(first.shape(), [3, 2, 2]);
        assert_eq!(first.pixels(), &Pixels::F32(values.to_vec().into()));
        write_npy(&x, &values.into_shape_with_order((2, 2, 2, 3)).unwrap()).unwrap();
        let last = npy_pair(&x, &y, "d").unwrap();
        assert_eq!((last.shape(), last.targets()), ([3, 2, 2], &[1, 2][..]));
        let Pixels::F32(pixels) = last.pixels() else {
            panic!("floats stay floats")
        };
        assert_eq!(
            pixels[..12],
            [0., 3., 6., 9., 1., 4., 7., 10., 2., 5., 8., 11.]
        );
    }

    /// A file in version 1 of the format.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        [file, header.into(), data.into()].concat()
    }

    fn described(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        file(
            &format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"),
            data,
        )
    }

    #[test]
    fn big_endian_numbers_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (x, y) = (dir.path().join("x.npy"), dir.path().join("y.npy"));
        std::fs::write(
            &x,
            described(">f4", "False", "(1, 1, 1)", &1.5f32.to_be_bytes()),
        )
        .unwrap();
        std::fs::write(&y, described(">i2", "False", "(1,)", &[1, 2])).unwrap();
        let data = npy_pair(&x, &y, "d").unwrap();
        assert_eq!(data.pixels(), &Pixels::F32([1.5].into()));
        assert_eq!(data.targets(), [258]);
    }

    #[test]
    fn what_is_no_labelled_image_is_named() {
        let good_x = described("|u1", "False", "(1, 1, 2)", &[1, 2]);
        let good_y = described("|i1", "False", "(1,)", &[3]);
        let x = |descr, order, shape, data: &[u8]| described(descr, order, shape, data);
        let huge = "(18446744073709551615, 18446744073709551615, 18446744073709551615)";
        let cases = [
            (b"PK".to_vec(), good_y.clone(), "another kind of file"),
            (
                x("|u1", "True", "(1, 1, 2)", &[1, 2]),
                good_y.clone(),
                "C order",
            ),
            (
                x("|u1", "False", "(1, 1, 2)", &[1]),
                good_y.clone(),
                "(1 read)",
            ),
            (
                x("|u1", "False", "(1, 1, 2)", &[1, 2, 3]),
                good_y.clone(),
                "(3 read)",
            ),
            (x("|u1", "False", huge, &[1]), good_y.clone(), "(1 read)"),
            (
                x("|O", "False", "(1, 1, 2)", &[1, 2]),
                good_y.clone(),
                "type |O",
            ),
            (
                x("<f8", "False", "(1, 1, 1)", &[0; 8]),
                good_y.clone(),
                "type <f8",
            ),
            (
                x("|u1", "False", "(1, 2)", &[1, 2]),
                good_y.clone(),
                "[1, 2]",
            ),
            (
                x("|u1", "False", "(0, 1, 2)", &[]),
                good_y.clone(),
                "[0, 1, 2]",
            ),
            (
                x("|u1", "False", "(1, 2, 1, 2)", &[0; 4]),
                good_y.clone(),
                "[1, 2, 1, 2]",
            ),
            (file("{'shape': 3}", &[]), good_y, "one simple type"),
            (
                good_x.clone(),
                described("|i1", "False", "(1,)", &[255]),
                "label -1 at position 0",
            ),
            (
                good_x.clone(),
                described("<u4", "False", "(1,)", &[0, 0, 1, 0]),
                "label 65536",
            ),
            (
                good_x.clone(),
                described("<f4", "False", "(1,)", &[0; 4]),
                "an integer type",
            ),
            (
                good_x,
                described("|i1", "False", "(2,)", &[0; 2]),
                "one label for each of 1 images",
            ),
        ];
        for (x_file, y_file, wanted) in cases {
            let dir = tempfile::tempdir().unwrap();
            let (x, y) = (dir.path().join("x.npy"), dir.path().join("y.npy"));
            std::fs::write(&x, x_file).unwrap();
            std::fs::write(&y, y_file).unwrap();
            let message = npy_pair(&x, &y, "d").unwrap_err().to_string();
            assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
            assert!(!message.contains('\n'), "more than one line: {message:?}");
        }
    }

    #[test]
    fn an_archive_without_y_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.npz");
        std::fs::write(&path, "no archive").unwrap();
        let message = npz_file(&path, "d").unwrap_err().to_string();
        assert!(message.contains("no archive"), "{message}");
        let mut npz = NpzWriter::new(File::create(&path).unwrap());
        npz.add_array("x", &array![[[0u8]]]).unwrap();
        npz.finish().unwrap();
        let message = npz_file(&path, "d").unwrap_err().to_string();
        assert!(message.contains("no y.npy in it"), "{message}");
    }
}
