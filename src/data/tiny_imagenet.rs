//! Tiny-ImageNet.
//!
//! The archive `tiny-imagenet-200.zip`, packed or unpacked: `wnids.txt` names the 200 classes,
//! `train/WNID/images/` holds 500 JPEGs of 64 x 64 each, `val/images/` 10,000 more, whose classes
//! `val/val_annotations.txt` gives. The test images have no published labels.

use super::Dataset;
use super::pictures::Store;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

const FOLDER: &str = "tiny-imagenet-200";
const ARCHIVE: &str = "tiny-imagenet-200.zip";
const CLASSES: &str = "wnids.txt";
const ANNOTATIONS: &str = "val/val_annotations.txt";
const REMEDY: &str = "download it again with `unforget data get tiny-imagenet`";

/// Reads Tiny-ImageNet, (training images, validation images) of 3 x 64 x 64 bytes, from `dir`,
/// `dir/tiny-imagenet-200` or `dir/tiny-imagenet-200.zip`.
///
/// Class i is line i of `wnids.txt`, as in Avalanche and for the arrays of DER's authors. Samples come
/// class by class: training images by their numbers, validation images in the order of the
/// annotations. Grey pictures get three equal channels. JPEGs are decoded by another library than
/// Python's, so single bytes can differ by one or two.
///
/// # Errors
/// [`Error::DataMissing`] if a file is not there; [`Error::Format`] if a list or a picture is damaged
/// or a class has no picture; [`Error::Io`] if something cannot be read.
pub fn tiny_imagenet_folder(dir: &Path) -> Result<(Dataset, Dataset)> {
    let Some(location) = Store::find(dir, FOLDER, ARCHIVE, CLASSES) else {
        return Err(Error::DataMissing(format!(
            "{}: expected {CLASSES}, {FOLDER} or {ARCHIVE}, found none; {REMEDY}",
            dir.display()
        )));
    };
    let mut store = Store::open(location, FOLDER, REMEDY)?;
    let classes = store.lines(CLASSES, REMEDY)?;
    let train = (classes.iter())
        .map(|class| {
            let folder = format!("train/{class}/images");
            let names = store.list(&folder)?;
            Ok(names
                .iter()
                .map(|name| format!("{folder}/{name}"))
                .collect())
        })
        .collect::<Result<Vec<_>>>()?;
    let validation = annotated(&mut store, &classes)?;
    let train = dataset(&mut store, &classes, train)?;
    Ok((train, dataset(&mut store, &classes, validation)?))
}

/// Whether [`tiny_imagenet_folder`] finds something in `dir`.
pub(super) fn is_folder(dir: &Path) -> bool {
    Store::find(dir, FOLDER, ARCHIVE, CLASSES).is_some()
}

/// The validation images of each class.
fn annotated(store: &mut Store, classes: &[String]) -> Result<Vec<Vec<String>>> {
    let of: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
    let mut images = vec![Vec::new(); classes.len()];
    for line in store.lines(ANNOTATIONS, REMEDY)? {
        let mut fields = line.split('\t');
        let class = (fields.next()).zip(fields.next().and_then(|class| of.get(class)));
        let Some((name, &class)) = class else {
            return Err(Error::format(
                store.path(ANNOTATIONS),
                format!("lines of a picture and a class of {CLASSES}"),
                format!("{line:?}"),
                REMEDY,
            ));
        };
        images[class].push(format!("val/images/{name}"));
    }
    Ok(images)
}

fn dataset(store: &mut Store, classes: &[String], images: Vec<Vec<String>>) -> Result<Dataset> {
    let mut targets = Vec::new();
    for (class, images) in (0u32..).zip(&images) {
        if images.is_empty() {
            let expected = format!("pictures of class {}", classes[class as usize]);
            return Err(Error::format(store.path(""), expected, "none", REMEDY));
        }
        targets.resize(targets.len() + images.len(), class);
    }
    let (pixels, shape) = store.pictures(&images.concat(), REMEDY)?;
    Dataset::from_u8("tiny-imagenet", shape, pixels, targets, classes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pixels;
    use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
    use std::io::{Cursor, Write};
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn jpeg(picture: impl Into<DynamicImage>) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        picture
            .into()
            .write_to(&mut out, ImageFormat::Jpeg)
            .unwrap();
        out.into_inner()
    }

    fn grey(level: u8) -> Vec<u8> {
        jpeg(GrayImage::from_pixel(64, 64, Luma([level])))
    }

    /// Two classes, not in alphabetical order, of which the first has twelve training pictures.
    fn files() -> Vec<(String, Vec<u8>)> {
        let mut files = vec![
            ("wnids.txt".to_owned(), b"n02\nn01\n".to_vec()),
            (
                "val/val_annotations.txt".to_owned(),
                b"val_0.JPEG\tn01\t0\t0\t62\t62\nval_1.JPEG\tn02\t1\t1\t9\t9\nval_2.JPEG\tn01\t0\t0\t3\t3\n"
                    .to_vec(),
            ),
            ("train/n01/n01_boxes.txt".to_owned(), b"boxes".to_vec()),
        ];
        for i in 0..12 {
            let name = format!("train/n02/images/n02_{i}.JPEG");
            files.push((name, grey(10 * i as u8)));
        }
        let colour = jpeg(RgbImage::from_pixel(64, 64, Rgb([200, 100, 50])));
        files.push(("train/n01/images/n01_0.JPEG".to_owned(), colour));
        for i in 0..3u8 {
            files.push((format!("val/images/val_{i}.JPEG"), grey(100 + i)));
        }
        files
    }

    fn unpack(dir: &Path, files: &[(String, Vec<u8>)]) {
        for (name, content) in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }

    fn zip(path: &Path, files: &[(String, Vec<u8>)]) {
        let mut zip = ZipWriter::new(std::fs::File::create(path).unwrap());
        for (name, content) in files {
            let name = format!("tiny-imagenet-200/{name}");
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn the_folder_and_the_archive_are_read_alike() {
        let unpacked = tempfile::tempdir().unwrap();
        unpack(&unpacked.path().join(FOLDER), &files());
        let packed = tempfile::tempdir().unwrap();
        zip(&packed.path().join(ARCHIVE), &files());
        for dir in [
            unpacked.path(),
            &unpacked.path().join(FOLDER),
            packed.path(),
        ] {
            assert!(is_folder(dir));
            let (train, validation) = tiny_imagenet_folder(dir).unwrap();
            assert_eq!((train.shape(), train.n_classes()), ([3, 64, 64], 2));
            assert_eq!(train.targets(), [vec![0; 12], vec![1]].concat());
            assert_eq!(validation.targets(), [0, 1, 1]);
            let Pixels::U8(pixels) = train.pixels() else {
                panic!("bytes stay bytes")
            };
            let plane = 64 * 64;
            // Numbers, not names: picture 2 comes before picture 10. Grey fills three channels.
            for i in 0..12 {
                assert_eq!(
                    pixels[3 * plane * i..][..3 * plane],
                    vec![10 * i as u8; 3 * plane]
                );
            }
            for (channel, level) in [200u8, 100, 50].into_iter().enumerate() {
                let found = pixels[(36 + channel) * plane];
                assert!(found.abs_diff(level) <= 2, "{found} for {level}");
            }
            let Pixels::U8(pixels) = validation.pixels() else {
                panic!("bytes stay bytes")
            };
            let levels: Vec<u8> = pixels.chunks(3 * plane).map(|image| image[0]).collect();
            assert_eq!(levels, [101, 100, 102]);
        }
        assert!(!is_folder(tempfile::tempdir().unwrap().path()));
    }

    #[test]
    fn damage_is_named() {
        let change = |name: &str, content: Option<&[u8]>| {
            let mut files = files();
            let at = files.iter().position(|(n, _)| n == name).unwrap();
            match content {
                Some(content) => files[at].1 = content.to_vec(),
                None => drop(files.remove(at)),
            }
            files
        };
        let small = jpeg(GrayImage::from_pixel(32, 32, Luma([1])));
        for (files, wanted) in [
            (change("wnids.txt", None), "wnids.txt: expected a file"),
            (
                change(ANNOTATIONS, Some(b"val_0.JPEG\tn03\n")),
                "val_0.JPEG\\tn03",
            ),
            (
                change(ANNOTATIONS, Some(b"val_0.JPEG\tn02\n")),
                "pictures of class n01",
            ),
            (
                change("val/images/val_2.JPEG", None),
                "val_2.JPEG: expected a file",
            ),
            (
                change("val/images/val_2.JPEG", Some(&small)),
                "expected 64 x 64 pixels",
            ),
            (
                change("val/images/val_2.JPEG", Some(b"no")),
                "a PNG or JPEG picture",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            zip(&dir.path().join(ARCHIVE), &files);
            let message = tiny_imagenet_folder(dir.path()).unwrap_err().to_string();
            assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(ARCHIVE), b"no zip").unwrap();
        let message = tiny_imagenet_folder(dir.path()).unwrap_err().to_string();
        assert!(message.contains("damage"), "{message}");
        let error = tiny_imagenet_folder(tempfile::tempdir().unwrap().path()).unwrap_err();
        assert!(matches!(error, Error::DataMissing(_)), "{error}");
    }
}
