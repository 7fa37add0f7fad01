//! A folder of pictures, one sub-folder per class.

use super::Dataset;
use crate::{Error, Result};
use image::{DynamicImage, ImageReader};
use std::io::{BufRead, Seek};
use std::path::{Path, PathBuf};

const REMEDY: &str = "give a folder with one sub-folder of PNG or JPEG pictures per class";

/// Reads a folder that holds one sub-folder of PNG or JPEG pictures for each class.
///
/// Class `i` is the `i`-th sub-folder by name, and its pictures follow by name, so the order does
/// not depend on the machine. Files with other endings and hidden ones are passed over. All
/// pictures must have one size. If all are grey the data set has one channel, otherwise three;
/// transparency is dropped, 16-bit values are rounded to bytes. Stored as bytes, C x H x W.
///
/// # Errors
/// [`Error::DataMissing`] if `dir` is not a folder or has no class with pictures; [`Error::Format`]
/// for a class without pictures, a picture that cannot be decoded or one of another size;
/// [`Error::Io`] if something cannot be read.
pub fn image_folder(dir: &Path, name: &str) -> Result<Dataset> {
    let (files, n_classes) = classes(dir)?;
    let pictures: Vec<DynamicImage> = files
        .iter()
        .map(|(_, path)| decode(path))
        .collect::<Result<_>>()?;
    let size = (pictures[0].width(), pictures[0].height());
    for (picture, (_, path)) in pictures.iter().zip(&files) {
        let found = (picture.width(), picture.height());
        if found != size {
            let expected = format!("{} x {} pixels, as in the first picture", size.0, size.1);
            let found = format!("{} x {}", found.0, found.1);
            return Err(Error::format(
                path,
                expected,
                found,
                "scale all pictures to one size",
            ));
        }
    }
    let targets = files.iter().map(|&(class, _)| class).collect();
    let channels = if pictures.iter().any(|picture| picture.color().has_color()) {
        3
    } else {
        1
    };
    let mut pixels = Vec::new();
    for picture in pictures {
        append(&picture, channels, &mut pixels);
    }
    let shape = [channels, size.1 as usize, size.0 as usize];
    Dataset::from_u8(name, shape, pixels, targets, n_classes)
}

/// The pictures by class and name, each with its class, and the number of classes.
///
/// # Errors
/// As [`image_folder`], but for the pictures' content.
pub(super) fn classes(dir: &Path) -> Result<(Vec<(u32, PathBuf)>, usize)> {
    if !dir.is_dir() {
        return Err(Error::DataMissing(format!(
            "{}: expected a folder of pictures, found none; {REMEDY}",
            dir.display()
        )));
    }
    let classes: Vec<PathBuf> = entries(dir)?
        .into_iter()
        .filter(|path| path.is_dir())
        .collect();
    if classes.is_empty() {
        return Err(Error::DataMissing(format!(
            "{}: expected a sub-folder for each class, found none; {REMEDY}",
            dir.display()
        )));
    }
    let mut files = Vec::new();
    for (class, path) in (0u32..).zip(&classes) {
        let before = files.len();
        let pictures = entries(path)?.into_iter().filter(|path| is_picture(path));
        files.extend(pictures.map(|path| (class, path)));
        if files.len() == before {
            return Err(Error::format(
                path,
                "PNG or JPEG pictures of a class",
                "none",
                REMEDY,
            ));
        }
    }
    Ok((files, classes.len()))
}

/// What lies in `dir`, hidden entries left out, sorted by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
        entries.collect()
    };
    let mut paths = read().map_err(|error| Error::io("read the folder", dir, error))?;
    paths.retain(|path| {
        path.file_name()
            .is_some_and(|name| !name.to_string_lossy().starts_with('.'))
    });
    paths.sort();
    Ok(paths)
}

fn is_picture(path: &Path) -> bool {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    path.is_file() && matches!(ending.as_deref(), Some("png" | "jpg" | "jpeg"))
}

fn decode(path: &Path) -> Result<DynamicImage> {
    let reader = ImageReader::open(path).map_err(|error| Error::io("open", path, error))?;
    decode_from(reader, path)
}

/// A picture of any format that is known, by its content: a JPEG called .png is common. The decoder
/// refuses pictures of absurd size.
pub(super) fn decode_from(
    reader: ImageReader<impl BufRead + Seek>,
    path: &Path,
) -> Result<DynamicImage> {
    let reader = reader
        .with_guessed_format()
        .map_err(|error| Error::io("read", path, error))?;
    reader.decode().map_err(|error| {
        Error::format(
            path,
            "a PNG or JPEG picture",
            error,
            "replace or remove the file",
        )
    })
}

/// Appends the picture channel by channel.
pub(super) fn append(picture: &DynamicImage, channels: usize, pixels: &mut Vec<u8>) {
    if channels == 1 {
        pixels.extend_from_slice(picture.to_luma8().as_raw());
        return;
    }
    let picture = picture.to_rgb8();
    for channel in 0..channels {
        pixels.extend(picture.pixels().map(|pixel| pixel.0[channel]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pixels;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    fn grey(path: PathBuf, width: u32, value: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(width, 2, Luma([value]))
            .save(path)
            .unwrap();
    }

    #[test]
    fn classes_and_pictures_come_by_name() {
        let dir = tempfile::tempdir().unwrap();
        grey(dir.path().join("zebra/1.png"), 3, 1);
        grey(dir.path().join("ant/b.PNG"), 3, 2);
        grey(dir.path().join("ant/a.png"), 3, 3);
        std::fs::write(dir.path().join("ant/notes.txt"), "not a picture").unwrap();
        std::fs::write(dir.path().join("readme"), "not a class").unwrap();
        let data = image_folder(dir.path(), "animals").unwrap();
        assert_eq!((data.shape(), data.n_classes()), ([1, 2, 3], 2));
        assert_eq!(data.targets(), [0, 0, 1]);
        let Pixels::U8(pixels) = data.pixels() else {
            panic!("bytes stay bytes")
        };
        assert_eq!([pixels[0], pixels[6], pixels[12]], [3, 2, 1]);
    }

    #[test]
    fn one_coloured_picture_makes_three_channels() {
        let dir = tempfile::tempdir().unwrap();
        grey(dir.path().join("a/1.png"), 2, 9);
        let mut picture = RgbImage::from_pixel(2, 2, Rgb([1, 2, 3]));
        picture.put_pixel(1, 0, Rgb([4, 5, 6]));
        picture.save(dir.path().join("a/2.png")).unwrap();
        let data = image_folder(dir.path(), "mixed").unwrap();
        let Pixels::U8(pixels) = data.pixels() else {
            panic!("bytes stay bytes")
        };
        assert_eq!(pixels[..12], [9; 12]);
        assert_eq!(pixels[12..], [1, 4, 1, 1, 2, 5, 2, 2, 3, 6, 3, 3]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = || image_folder(dir.path(), "x").unwrap_err().to_string();
        assert!(
            message().contains("a sub-folder for each class"),
            "{}",
            message()
        );
        grey(dir.path().join("a/1.png"), 2, 0);
        std::fs::create_dir(dir.path().join("b")).unwrap();
        assert!(message().contains("found none; give"), "{}", message());
        std::fs::write(dir.path().join("b/2.jpg"), b"\xff\xd8\xff no picture").unwrap();
        assert!(
            message().contains("2.jpg: expected a PNG or JPEG"),
            "{}",
            message()
        );
        std::fs::remove_file(dir.path().join("b/2.jpg")).unwrap();
        grey(dir.path().join("b/3.png"), 5, 0);
        assert!(
            message().contains("3.png: expected 2 x 2 pixels"),
            "{}",
            message()
        );
        assert!(!message().contains('\n'));
    }
}
