//! Pictures that stay on the disk until a mini-batch wants them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use image::ImageReader;

use super::Dataset;
use super::augment::centred;
use super::folder::{append, classes, decode_from};
use super::resize::{Axis, resize};
use crate::{Error, Result};

/// Colours of each picture; grey ones get three equal ones.
const CHANNELS: usize = 3;

/// The files of an [`image_folder_on_disk`].
#[derive(Clone, PartialEq, Debug)]
pub struct ImageFiles {
    paths: Vec<PathBuf>,
    size: [usize; 2],
}

/// A folder that holds one sub-folder of PNG or JPEG pictures for each class, as
/// [`image_folder`](super::folder::image_folder) reads it, but of any size, and left on the disk: a picture
/// is decoded each time a mini-batch wants it, which is what loader workers are for
/// ([`LoaderOptions::num_workers`](crate::training::LoaderOptions)). Only the list of names is read here.
///
/// Every sample has three channels of `height` x `width` bytes. A picture of another size is scaled so
/// that it just covers them, and its middle is taken: torchvision's `Resize` and `CenterCrop`.
///
/// A picture that cannot be read later, in a training or an evaluation, ends it with the error that
/// names the file.
///
/// # Errors
/// [`Error::DataMissing`] and [`Error::Format`] as for `image_folder`, but for the pictures' content;
/// [`Error::Config`] for a size of zero.
pub fn image_folder_on_disk(dir: &Path, name: &str, size: [usize; 2]) -> Result<Dataset> {
    let (files, n_classes) = classes(dir)?;
    let (targets, paths) = files.into_iter().unzip();
    let files = ImageFiles { paths, size };
    Dataset::from_files(name, files, targets, n_classes)
}

/// Memory of a thread, which only grows.
#[derive(Default)]
struct Scratch {
    decoded: Vec<u8>,
    between: Vec<u8>,
    scaled: Vec<u8>,
    sample: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl ImageFiles {
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn shape(&self) -> [usize; 3] {
        [CHANNELS, self.size[0], self.size[1]]
    }

    /// Calls `work` with the bytes of picture `i`, channel after channel.
    ///
    /// # Panics
    /// With an [`Error`], which [`Tape::guard`](crate::tape::Tape::guard) turns back into one, if it cannot
    /// be read.
    pub(super) fn with<T>(&self, i: usize, work: impl FnOnce(&[u8]) -> T) -> T {
        SCRATCH.with_borrow_mut(|scratch| {
            if let Err(error) = self.read(i, scratch) {
                std::panic::resume_unwind(Box::new(error));
            }
            work(&scratch.sample)
        })
    }

    fn read(&self, i: usize, scratch: &mut Scratch) -> Result<()> {
        let path = &self.paths[i];
        let reader = ImageReader::open(path).map_err(|error| Error::io("open", path, error))?;
        let picture = decode_from(reader, path)?;
        let found = [picture.height() as usize, picture.width() as usize];
        let Scratch {
            decoded,
            between,
            scaled,
            sample,
        } = scratch;
        sample.clear();
        if found == self.size {
            append(&picture, CHANNELS, sample);
            return Ok(());
        }
        decoded.clear();
        append(&picture, CHANNELS, decoded);
        let to = covering(found, self.size);
        let axes = [0, 1].map(|d| Axis::new(found[d], to[d]));
        resize(decoded, found, &axes, between, scaled);
        let [top, left] = [0, 1].map(|d| centred(to[d], self.size[d]) as usize);
        for plane in scaled.chunks_exact(to[0] * to[1]) {
            for row in plane.chunks_exact(to[1]).skip(top).take(self.size[0]) {
                sample.extend_from_slice(&row[left..left + self.size[1]]);
            }
        }
        Ok(())
    }
}

/// The smallest size of the shape of `found` that covers `wanted`.
fn covering(found: [usize; 2], wanted: [usize; 2]) -> [usize; 2] {
    // The side that must be scaled up more.
    let tight = usize::from(wanted[0] * found[1] < wanted[1] * found[0]);
    [0, 1].map(|d| {
        let length = found[d] * wanted[tight] / found[tight];
        if d == tight {
            wanted[d]
        } else {
            length.max(wanted[d])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ClassificationDataset, Group, RawSample, TransformGroups};
    use image::{Rgb, RgbImage};

    #[test]
    fn a_picture_covers_the_size_that_is_wanted() {
        assert_eq!(covering([10, 20], [5, 5]), [5, 10]);
        assert_eq!(covering([20, 10], [5, 5]), [10, 5]);
        assert_eq!(covering([3, 4], [6, 6]), [6, 8]);
        assert_eq!(covering([375, 500], [256, 256]), [256, 341]);
        assert_eq!(covering([7, 7], [4, 6]), [6, 6]);
    }

    #[test]
    fn pictures_are_those_of_a_folder_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        for (class, shade) in [("a", 10), ("b", 200)] {
            std::fs::create_dir(dir.path().join(class)).unwrap();
            let picture =
                RgbImage::from_fn(5, 4, |x, y| Rgb([shade, (x * 20) as u8, (y * 30) as u8]));
            picture.save(dir.path().join(class).join("1.png")).unwrap();
        }
        let view = |data| ClassificationDataset::new(data, TransformGroups::default());
        let memory = view(crate::data::folder::image_folder(dir.path(), "m").unwrap());
        let disk = view(image_folder_on_disk(dir.path(), "d", [4, 5]).unwrap());
        assert_eq!((disk.targets(), disk.shape()), (vec![0, 1], [3, 4, 5]));
        assert_eq!(disk.images(Group::Train), memory.images(Group::Train));
        assert_eq!(disk.raw(1), memory.raw(1));

        let small = view(image_folder_on_disk(dir.path(), "s", [2, 2]).unwrap());
        let RawSample::U8(pixels) = small.raw(0) else {
            panic!("bytes stay bytes")
        };
        assert_eq!(pixels[..4], [10; 4]);
        assert!(
            pixels[4] < pixels[5] && pixels[4] == pixels[6],
            "{pixels:?}"
        );
        assert!(
            pixels[8] == pixels[9] && pixels[8] < pixels[10],
            "{pixels:?}"
        );
        assert!(image_folder_on_disk(dir.path(), "z", [0, 2]).is_err());

        // The middle columns 1 to 3 of 5, as they are.
        let narrow = view(image_folder_on_disk(dir.path(), "n", [4, 3]).unwrap());
        let RawSample::U8(pixels) = narrow.raw(0) else {
            panic!("bytes stay bytes")
        };
        assert_eq!(pixels[12..15], [20, 40, 60]);
    }

    #[test]
    fn a_picture_that_is_gone_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let path = dir.path().join("a/1.png");
        RgbImage::new(2, 2).save(&path).unwrap();
        let data = image_folder_on_disk(dir.path(), "d", [2, 2]).unwrap();
        let view = ClassificationDataset::new(data, TransformGroups::default());
        std::fs::remove_file(path).unwrap();
        let read = std::panic::AssertUnwindSafe(|| view.raw(0));
        let error = std::panic::catch_unwind(read).unwrap_err();
        let error = error.downcast::<Error>().expect("an error").to_string();
        assert!(error.contains("1.png"), "{error}");
    }
}
