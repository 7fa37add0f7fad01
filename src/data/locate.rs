//! Finding the published data sets on this machine.

use super::{Dataset, cifar, core50, idx, tiny_imagenet};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The environment variable that names a folder of data sets.
pub const DATA_VARIABLE: &str = "UNFORGET_DATA";

/// Where Debian's package `dataset-fashion-mnist` puts its files.
const DEBIAN_FASHION_MNIST: &str = "/usr/share/datasets/fashion-mnist";

/// A published data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Handwritten digits, 1 x 28 x 28, 60,000 + 10,000.
    Mnist,
    /// Articles of clothing, 1 x 28 x 28, 60,000 + 10,000.
    FashionMnist,
    /// Photographs of 10 classes, 3 x 32 x 32, 50,000 + 10,000.
    Cifar10,
    /// Photographs of 100 classes, 3 x 32 x 32, 50,000 + 10,000.
    Cifar100,
    /// Photographs of 200 classes, 3 x 64 x 64, 100,000 + 10,000.
    TinyImageNet,
    /// Videos of 50 objects, 3 x 128 x 128 or 3 x 32 x 32; found but not downloaded.
    Core50,
}

impl Kind {
    /// Every data set.
    pub const ALL: [Kind; 6] = [
        Kind::Mnist,
        Kind::FashionMnist,
        Kind::Cifar10,
        Kind::Cifar100,
        Kind::TinyImageNet,
        Kind::Core50,
    ];

    /// The name on the command line, in messages and of the folder in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mnist => "mnist",
            Kind::FashionMnist => "fashion-mnist",
            Kind::Cifar10 => "cifar10",
            Kind::Cifar100 => "cifar100",
            Kind::TinyImageNet => "tiny-imagenet",
            Kind::Core50 => "core50",
        }
    }

    /// The data set called `name`, if there is one.
    ///
    /// ```
    /// use unforget::data::locate::Kind;
    /// assert_eq!(Kind::from_name("fashion-mnist"), Some(Kind::FashionMnist));
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// How to get the data set, as the end of a message.
    pub fn remedy(self) -> String {
        match self {
            Kind::Core50 => "get it from https://vlomonaco.github.io/core50".into(),
            _ => format!("download it with `unforget data get {}`", self.name()),
        }
    }

    /// Whether `dir`, or a folder that is usual inside it, holds the data set.
    fn is_in(self, dir: &Path) -> bool {
        match self {
            Kind::Mnist | Kind::FashionMnist => idx::is_folder(dir, self.name()),
            Kind::Cifar10 => cifar::is_folder(dir, false),
            Kind::Cifar100 => cifar::is_folder(dir, true),
            Kind::TinyImageNet => tiny_imagenet::is_folder(dir),
            Kind::Core50 => core50::is_folder(dir),
        }
    }
}

/// The folder that holds `kind`.
///
/// With an `explicit` folder, that one. Otherwise the first of these that holds the data set:
/// the folder in the environment variable `UNFORGET_DATA` or its sub-folder of the data set's
/// name, the sub-folder of that name in [`cache_dir`], and for Fashion-MNIST
/// `/usr/share/datasets/fashion-mnist` (Debian's package `dataset-fashion-mnist`). The sub-folders
/// that torchvision makes (`MNIST/raw`) are looked into as well.
///
/// # Errors
/// [`Error::DataMissing`] if `explicit` is not a folder, or if the data set is nowhere; the message
/// lists the places.
pub fn locate(kind: Kind, explicit: Option<&Path>) -> Result<PathBuf> {
    let variable = std::env::var_os(DATA_VARIABLE).filter(|value| !value.is_empty());
    let mut places = Vec::new();
    if let Some(root) = variable.map(PathBuf::from) {
        places.push(root.join(kind.name()));
        places.push(root);
    }
    // Without a home folder there is no cache; the other places still count.
    places.extend(cache_dir().ok().map(|cache| cache.join(kind.name())));
    if kind == Kind::FashionMnist {
        places.push(DEBIAN_FASHION_MNIST.into());
    }
    search(kind, explicit, &places)
}

/// Finds the data set as [`locate`] does and reads it: (training images, test images).
///
/// # Errors
/// As [`locate`], and those of the reader of its files; [`Error::Config`] for CORe50, which is read
/// run by run ([`core50_run`](super::core50::core50_run)).
pub fn load(kind: Kind, explicit: Option<&Path>) -> Result<(Dataset, Dataset)> {
    let dir = locate(kind, explicit)?;
    match kind {
        Kind::Mnist | Kind::FashionMnist => idx::mnist_folder(&dir, kind.name()),
        Kind::Cifar10 => cifar::cifar10_folder(&dir),
        Kind::Cifar100 => cifar::cifar100_folder(&dir),
        Kind::TinyImageNet => tiny_imagenet::tiny_imagenet_folder(&dir),
        Kind::Core50 => Err(Error::config(
            "data set",
            "one with a single split",
            "core50",
        )),
    }
}

/// The folder of this user's downloaded data sets, such as `~/.cache/unforget`; it may not exist
/// yet. The data set of a [`Kind`] belongs into the sub-folder of its name.
///
/// # Errors
/// [`Error::Config`] if the system knows no home folder.
pub fn cache_dir() -> Result<PathBuf> {
    match directories::BaseDirs::new() {
        Some(dirs) => Ok(dirs.cache_dir().join("unforget")),
        None => Err(Error::config(
            "cache folder",
            format!("a home folder (or give one with --data-dir or {DATA_VARIABLE})"),
            "none",
        )),
    }
}

fn search(kind: Kind, explicit: Option<&Path>, places: &[PathBuf]) -> Result<PathBuf> {
    let name = kind.name();
    if let Some(dir) = explicit {
        // If its files are not there the reader says which, better than could be said here.
        return if dir.is_dir() {
            Ok(dir.to_path_buf())
        } else {
            Err(Error::DataMissing(format!(
                "{}: expected a folder with {name}, found none; give an existing folder, or {}",
                dir.display(),
                kind.remedy()
            )))
        };
    }
    places
        .iter()
        .find(|dir| kind.is_in(dir))
        .cloned()
        .ok_or_else(|| {
            let places: Vec<String> = places.iter().map(|dir| dir.display().to_string()).collect();
            let places = if places.is_empty() {
                "nowhere".into()
            } else {
                places.join(", ")
            };
            Error::DataMissing(format!(
                "{name} is not on this machine (looked in {places}); {}, or name its folder with \
             --data-dir or {DATA_VARIABLE}",
                kind.remedy()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: PathBuf) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    #[test]
    fn the_first_place_with_the_files_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let places: Vec<PathBuf> = ["a", "b", "c"]
            .iter()
            .map(|name| dir.path().join(name))
            .collect();
        for (kind, file) in [
            (Kind::Mnist, "train-images-idx3-ubyte"),
            (Kind::Mnist, "MNIST/raw/train-images-idx3-ubyte.gz"),
            (
                Kind::FashionMnist,
                "FashionMNIST/raw/train-images-idx3-ubyte.gz",
            ),
            (Kind::Cifar10, "cifar-10-batches-bin/test_batch.bin"),
            (Kind::Cifar10, "cifar-10-python.tar.gz"),
            (Kind::Cifar100, "test.bin"),
            (Kind::Cifar100, "cifar-100-python/test"),
            (Kind::TinyImageNet, "tiny-imagenet-200.zip"),
            (Kind::TinyImageNet, "wnids.txt"),
            (Kind::Core50, "core50_32x32/s1/o1/C_01_01_000.png"),
        ] {
            std::fs::create_dir_all(&places[0]).unwrap();
            touch(places[1].join(file));
            touch(places[2].join(file));
            assert_eq!(search(kind, None, &places).unwrap(), places[1], "{file}");
            places
                .iter()
                .for_each(|place| std::fs::remove_dir_all(place).unwrap());
        }
    }

    #[test]
    fn a_missing_data_set_names_every_place_and_the_remedy() {
        let places = ["/no/such/a".into(), "/no/such/b".into()];
        let error = search(Kind::Cifar10, None, &places).unwrap_err();
        assert!(matches!(error, Error::DataMissing(_)));
        let message = error.to_string();
        for part in [
            "/no/such/a",
            "/no/such/b",
            "unforget data get cifar10",
            "UNFORGET_DATA",
        ] {
            assert!(message.contains(part), "{part} is not in {message:?}");
        }
        assert!(!message.contains('\n'));
    }

    #[test]
    fn an_explicit_folder_must_exist_and_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path().join("cache/train-images-idx3-ubyte"));
        let places = [dir.path().join("cache")];
        assert_eq!(
            search(Kind::Mnist, Some(dir.path()), &places).unwrap(),
            dir.path()
        );
        let missing = dir.path().join("missing");
        let message = load(Kind::Mnist, Some(&missing)).unwrap_err().to_string();
        assert!(
            message.contains("missing: expected a folder with mnist"),
            "{message}"
        );
    }

    #[test]
    fn names_lead_back_to_their_data_set() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("imagenet"), None);
    }
}
