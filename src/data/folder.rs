//! Folders of pictures.

use super::{Dataset, Images, Pixels, TrainTest};
use crate::{Error, Result};
use image::{DynamicImage, ImageDecoder, ImageReader};
use std::fs;
use std::path::{Path, PathBuf};

/// Loads `dir/train/CLASS/*` and `dir/test/CLASS/*` (or `dir/val/CLASS/*` where there is no
/// `test`), PNG or JPEG.
///
/// Class k is the k-th subfolder of `train` in order of name; within a class pictures come in
/// order of name. All pictures must have the same size. They become one grey channel if all of
/// them are grey, else red, green and blue; transparency is dropped. Other files are ignored.
///
/// # Errors
/// [`Error::DataMissing`] if a folder is missing or holds no picture; [`Error::Format`] if a
/// picture cannot be decoded or differs in size, or `test` has a class that `train` lacks;
/// [`Error::Io`] if the system refuses to read.
pub fn load_image_folder(dir: impl AsRef<Path>) -> Result<TrainTest> {
    let dir = dir.as_ref();
    let test_dir = ["test", "val"].iter().map(|part| dir.join(part)).find(|path| path.is_dir());
    let test_dir = test_dir.unwrap_or_else(|| dir.join("test"));
    let train = pictures(&dir.join("train"))?;
    let test = pictures(&test_dir)?;
    let classes: Vec<&str> = train.iter().map(|(class, _)| class.as_str()).collect();
    if let Some((extra, _)) = test.iter().find(|(class, _)| !classes.contains(&class.as_str())) {
        let remedy = "give both parts the same subfolders";
        let expected = format!("the classes of train ({})", classes.join(", "));
        return Err(Error::format(&test_dir, expected, format!("class {extra}"), remedy));
    }
    let kinds: Vec<Kind> = [&train, &test]
        .into_iter()
        .flatten()
        .flat_map(|(_, files)| files)
        .map(|path| kind(path))
        .collect::<Result<_>>()?;
    let size = kinds[0].size;
    let channels = if kinds.iter().all(|kind| kind.grey) { 1 } else { 3 };
    let paths = || [&train, &test].into_iter().flatten().flat_map(|(_, files)| files);
    if let Some((path, kind)) = paths().zip(&kinds).find(|(_, kind)| kind.size != size) {
        let expected = format!("{} x {} pixels like the other pictures", size.0, size.1);
        let found = format!("{} x {}", kind.size.0, kind.size.1);
        return Err(Error::format(path, expected, found, "bring all pictures to one size"));
    }
    let load = |name: &str, part: &[(String, Vec<PathBuf>)]| {
        let mut pixels = Vec::new();
        let mut targets = Vec::new();
        for (class, files) in part {
            let target = classes.iter().position(|name| name == class).unwrap_or(0) as u32;
            for path in files {
                append(&decode(path)?, channels, &mut pixels);
                targets.push(target);
            }
        }
        let shape = [channels, size.1 as usize, size.0 as usize];
        let images = Images::new(shape, Pixels::U8(pixels.into()))?;
        Dataset::new(&format!("{name} of {}", dir.display()), images, targets, classes.len())
    };
    Ok(TrainTest { train: load("train", &train)?, test: load("test", &test)? })
}

/// What a picture's header tells.
struct Kind {
    /// (width, height).
    size: (u32, u32),
    grey: bool,
}

/// The subfolders of `dir` with their pictures, both sorted by name.
fn pictures(dir: &Path) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let missing = |what: &str| {
        Error::DataMissing(format!(
            "{}: {what}; an image folder has one subfolder of PNG or JPEG files per class in \
             each of train and test",
            dir.display()
        ))
    };
    if !dir.is_dir() {
        return Err(missing("there is no such folder"));
    }
    let mut classes = Vec::new();
    for path in entries(dir)? {
        if path.is_dir() {
            let files: Vec<PathBuf> = entries(&path)?.into_iter().filter(|p| is_picture(p)).collect();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if files.is_empty() {
                return Err(missing(&format!("the subfolder {name} holds no picture")));
            }
            classes.push((name, files));
        }
    }
    if classes.is_empty() { Err(missing("there is no subfolder")) } else { Ok(classes) }
}

/// The paths in `dir`, sorted.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect();
    let mut paths: Vec<PathBuf> = read().map_err(|source| Error::io("list", dir, source))?;
    paths.sort();
    Ok(paths)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    path.is_file() && ["png", "jpg", "jpeg"].iter().any(|known| extension == *known)
}

fn kind(path: &Path) -> Result<Kind> {
    let decoder = reader(path)?.into_decoder().map_err(|error| damaged(path, &error))?;
    Ok(Kind { size: decoder.dimensions(), grey: !decoder.color_type().has_color() })
}

fn decode(path: &Path) -> Result<DynamicImage> {
    reader(path)?.decode().map_err(|error| damaged(path, &error))
}

/// A reader with the `image` crate's default limits on memory; the content decides the format.
fn reader(path: &Path) -> Result<ImageReader<std::io::BufReader<fs::File>>> {
    ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|source| Error::io("read", path, source))
}

fn damaged(path: &Path, error: &image::ImageError) -> Error {
    Error::format(path, "a PNG or JPEG picture", error, "replace or remove the file")
}

/// Appends the picture channel by channel.
fn append(picture: &DynamicImage, channels: usize, pixels: &mut Vec<u8>) {
    if channels == 1 {
        pixels.extend_from_slice(picture.to_luma8().as_raw());
    } else {
        let rgb = picture.to_rgb8();
        for channel in 0..3 {
            pixels.extend(rgb.pixels().map(|pixel| pixel.0[channel]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::PixelSlice;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    fn grey(path: PathBuf, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_fn(3, 2, |x, y| Luma([value + (y * 3 + x) as u8])).save(path).unwrap();
    }

    fn grey_folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, value) in [
            ("train/owl/b.png", 20),
            ("train/owl/a.png", 10),
            ("train/ant/z.png", 0),
            ("val/owl/q.PNG", 30),
        ] {
            grey(dir.path().join(file), value);
        }
        fs::write(dir.path().join("train/owl/notes.txt"), "not a picture").unwrap();
        dir
    }

    #[test]
    fn classes_and_pictures_are_sorted_by_name() {
        let dir = grey_folder();
        let data = load_image_folder(dir.path()).unwrap();
        assert_eq!((data.train.shape(), data.train.n_classes()), ([1, 2, 3], 2));
        assert_eq!((data.train.targets(), data.test.targets()), (&[0, 1, 1][..], &[1][..]));
        assert_eq!(data.train.images().get(1), PixelSlice::U8(&[10, 11, 12, 13, 14, 15]));
        assert_eq!(data.test.images().get(0), PixelSlice::U8(&[30, 31, 32, 33, 34, 35]));
    }

    #[test]
    fn one_coloured_picture_gives_all_three_channels() {
        let dir = grey_folder();
        let colours = RgbImage::from_fn(3, 2, |x, y| Rgb([(y * 3 + x) as u8, 100, 200]));
        colours.save(dir.path().join("train/ant/z.png")).unwrap();
        let data = load_image_folder(dir.path()).unwrap();
        assert_eq!(data.train.shape(), [3, 2, 3]);
        let PixelSlice::U8(ant) = data.train.images().get(0) else { panic!() };
        assert_eq!(ant, [&[0, 1, 2, 3, 4, 5][..], &[100; 6], &[200; 6]].concat());
        let PixelSlice::U8(owl) = data.test.images().get(0) else { panic!() };
        assert_eq!(owl, [30, 31, 32, 33, 34, 35].repeat(3));
    }

    #[test]
    fn jpeg_is_read() {
        let dir = grey_folder();
        GrayImage::from_pixel(3, 2, Luma([128])).save(dir.path().join("train/ant/y.jpg")).unwrap();
        let data = load_image_folder(dir.path()).unwrap();
        assert_eq!(data.train.targets(), [0, 0, 1, 1]);
        let PixelSlice::U8(flat) = data.train.images().get(0) else { panic!() };
        assert!(flat.iter().all(|&pixel| pixel.abs_diff(128) <= 2), "{flat:?}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = grey_folder();
        let path = |file: &str| dir.path().join(file);
        let message = || load_image_folder(dir.path()).unwrap_err().to_string();

        GrayImage::from_pixel(4, 2, Luma([1])).save(path("val/owl/q.PNG")).unwrap();
        assert!(message().contains("3 x 2 pixels like the other pictures, found 4 x 2"));
        fs::write(path("val/owl/q.PNG"), "no picture").unwrap();
        assert!(message().contains("q.PNG: expected a PNG or JPEG picture"), "{}", message());
        fs::remove_file(path("val/owl/q.PNG")).unwrap();
        assert!(message().contains("the subfolder owl holds no picture"), "{}", message());
        grey(path("val/owl/q.png"), 1);
        grey(path("val/yak/q.png"), 1);
        assert!(message().contains("the classes of train (ant, owl), found class yak"));
        fs::remove_dir_all(path("val")).unwrap();
        assert!(message().contains("test: there is no such folder"), "{}", message());
    }
}
