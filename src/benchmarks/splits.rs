//! Published image data sets divided by class.

use std::path::Path;

use super::NcBenchmark;
use crate::Result;
use crate::data::embedded::mnist_tenth;
use crate::data::locate::{Kind, load};
use crate::data::on_disk::image_folder_on_disk;
use crate::data::{Dataset, Transform, TransformGroups};
use crate::rng::PythonRandom;

/// MNIST's ten digits divided over experiences.
pub struct SplitMnist;

impl SplitMnist {
    /// Normalised with MNIST's mean and standard deviation.
    pub fn from_datasets(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = TransformGroups::same(Transform::mnist());
        NcBenchmark::new(train, test, transforms).name("SplitMNIST")
    }

    /// S-MNIST of the paper of DER (P. Buzzega et al., NeurIPS 2020): five tasks of two digits in
    /// ascending order, pixels from 0 to 1, not normalised.
    pub fn paper(train: Dataset, test: Dataset) -> NcBenchmark {
        let builder = NcBenchmark::new(train, test, TransformGroups::default());
        builder.name("S-MNIST").n_experiences(5).shuffle(false)
    }

    /// The embedded tenth of MNIST: 6,000 training and 1,000 test images, as many of each digit.
    pub fn embedded() -> NcBenchmark {
        let (train, test) = mnist_tenth();
        Self::from_datasets(train, test)
    }

    /// Full MNIST from `dir`, or, with `None`, from wherever it is found on this machine (see
    /// [`locate`](crate::data::locate)).
    ///
    /// # Errors
    /// [`Error::DataMissing`](crate::Error::DataMissing) with the places looked at, or what is wrong with the files.
    pub fn full(dir: Option<&Path>) -> Result<NcBenchmark> {
        let (train, test) = load(Kind::Mnist, dir)?;
        Ok(Self::from_datasets(train, test))
    }
}

/// Fashion-MNIST's ten articles divided over experiences.
pub struct SplitFmnist;

impl SplitFmnist {
    /// Normalised with Fashion-MNIST's mean and standard deviation.
    pub fn from_datasets(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = TransformGroups::same(Transform::fmnist());
        NcBenchmark::new(train, test, transforms).name("SplitFMNIST")
    }

    /// Full Fashion-MNIST from `dir`, or, with `None`, from wherever it is found on this machine (see
    /// [`locate`](crate::data::locate)).
    ///
    /// # Errors
    /// [`Error::DataMissing`](crate::Error::DataMissing) with the places looked at, or what is wrong with the files.
    pub fn full(dir: Option<&Path>) -> Result<NcBenchmark> {
        let (train, test) = load(Kind::FashionMnist, dir)?;
        Ok(Self::from_datasets(train, test))
    }
}

/// Reads the data set `kind` and hands it to `from_datasets`.
fn full(
    kind: Kind,
    dir: Option<&Path>,
    from_datasets: fn(Dataset, Dataset) -> NcBenchmark,
) -> Result<NcBenchmark> {
    let (train, test) = load(kind, dir)?;
    Ok(from_datasets(train, test))
}

/// Random crop of `side` x `side` with four pixels of padding and random flip in front of `eval`.
fn cropped_and_flipped(side: usize, eval: Transform) -> TransformGroups {
    TransformGroups {
        train: eval
            .clone()
            .random_crop(side, side, 4)
            .random_horizontal_flip(0.5),
        eval,
    }
}

/// A benchmark of the paper of DER: classes in ascending order.
fn paper(
    name: &str,
    data: (Dataset, Dataset),
    n_experiences: usize,
    transforms: TransformGroups,
) -> NcBenchmark {
    let builder = NcBenchmark::new(data.0, data.1, transforms).name(name);
    builder.n_experiences(n_experiences).shuffle(false)
}

/// CIFAR-10's ten classes divided over experiences.
pub struct SplitCifar10;

impl SplitCifar10 {
    /// Avalanche's transforms: in training a random crop with four pixels of padding and a random
    /// flip; normalised.
    pub fn from_datasets(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = cropped_and_flipped(32, Transform::cifar10());
        NcBenchmark::new(train, test, transforms).name("SplitCIFAR10")
    }

    /// S-CIFAR-10 of the paper of DER (P. Buzzega et al., NeurIPS 2020): five tasks of two classes in
    /// ascending order, the same crop and flip, the authors' constants.
    pub fn paper(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = cropped_and_flipped(32, Transform::cifar10_paper());
        paper("S-CIFAR-10", (train, test), 5, transforms)
    }

    /// CIFAR-10 from `dir`, or, with `None`, from wherever it is found on this machine (see
    /// [`locate`](crate::data::locate)).
    ///
    /// # Errors
    /// [`Error::DataMissing`](crate::Error::DataMissing) with the places looked at, or what is wrong
    /// with the files.
    pub fn full(dir: Option<&Path>) -> Result<NcBenchmark> {
        full(Kind::Cifar10, dir, Self::from_datasets)
    }
}

/// CIFAR-100's hundred classes divided over experiences.
pub struct SplitCifar100;

impl SplitCifar100 {
    /// Avalanche's transforms: in training a random crop with four pixels of padding and a random
    /// flip; normalised.
    pub fn from_datasets(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = cropped_and_flipped(32, Transform::cifar100());
        NcBenchmark::new(train, test, transforms).name("SplitCIFAR100")
    }

    /// S-CIFAR-100 as DER's authors run it: ten tasks of ten classes in ascending order, the same crop
    /// and flip, their constants.
    pub fn paper(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = cropped_and_flipped(32, Transform::cifar100_paper());
        paper("S-CIFAR-100", (train, test), 10, transforms)
    }

    /// CIFAR-100 from `dir`, or, with `None`, from wherever it is found on this machine (see
    /// [`locate`](crate::data::locate)).
    ///
    /// # Errors
    /// As [`SplitCifar10::full`].
    pub fn full(dir: Option<&Path>) -> Result<NcBenchmark> {
        full(Kind::Cifar100, dir, Self::from_datasets)
    }
}

/// CIFAR-10 as the first experience, then CIFAR-100 divided over the others; 110 classes.
pub struct SplitCifar110;

impl SplitCifar110 {
    /// Avalanche's SplitCIFAR110 with CIFAR-100's transforms: classes 0 to 9 are CIFAR-10's, class
    /// 10 + c is class c of CIFAR-100. Their order is drawn from `seed` by Python's generator, as
    /// there; a later `seed` or `shuffle` changes nothing, a `fixed_class_order` replaces it.
    pub fn from_datasets(
        cifar10: (Dataset, Dataset),
        cifar100: (Dataset, Dataset),
        seed: u64,
    ) -> NcBenchmark {
        let order = PythonRandom::new(seed).permutation(100);
        let order = (0..10).chain(order.into_iter().map(|class| 10 + class));
        let transforms = cropped_and_flipped(32, Transform::cifar100());
        let (train, test) = (vec![cifar10.0, cifar100.0], vec![cifar10.1, cifar100.1]);
        NcBenchmark::from_several(train, test, transforms)
            .name("SplitCIFAR110")
            .fixed_class_order(order.collect())
            .per_exp_classes([(0, 10)].into())
    }

    /// Both data sets from wherever they are found on this machine.
    ///
    /// # Errors
    /// As [`SplitCifar10::full`].
    pub fn full(seed: u64) -> Result<NcBenchmark> {
        let (cifar10, cifar100) = (load(Kind::Cifar10, None)?, load(Kind::Cifar100, None)?);
        Ok(Self::from_datasets(cifar10, cifar100, seed))
    }
}

/// Tiny-ImageNet's 200 classes divided over experiences; its validation images are the test data.
pub struct SplitTinyImageNet;

impl SplitTinyImageNet {
    /// Avalanche's transforms: in training a random flip; normalised with CIFAR-10's constants. Ten
    /// experiences unless told otherwise.
    pub fn from_datasets(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = TransformGroups {
            train: Transform::cifar10().random_horizontal_flip(0.5),
            eval: Transform::cifar10(),
        };
        let builder = NcBenchmark::new(train, test, transforms).name("SplitTinyImageNet");
        builder.n_experiences(10)
    }

    /// S-Tiny-ImageNet of the paper of DER (P. Buzzega et al., NeurIPS 2020): ten tasks of twenty
    /// classes in ascending order, random crop of 64 with four pixels of padding and random flip, the
    /// authors' constants.
    pub fn paper(train: Dataset, test: Dataset) -> NcBenchmark {
        let transforms = cropped_and_flipped(64, Transform::tiny_imagenet_paper());
        paper("S-Tiny-ImageNet", (train, test), 10, transforms)
    }

    /// Tiny-ImageNet from `dir`, or, with `None`, from wherever it is found on this machine (see
    /// [`locate`](crate::data::locate)).
    ///
    /// # Errors
    /// As [`SplitCifar10::full`].
    pub fn full(dir: Option<&Path>) -> Result<NcBenchmark> {
        full(Kind::TinyImageNet, dir, Self::from_datasets)
    }
}

/// ImageNet's classes, or those of any two folders of pictures, divided over experiences.
pub struct SplitImageNet;

impl SplitImageNet {
    /// Training and test pictures from two folders with one sub-folder for each class, as ImageNet's
    /// `train` and `val` are laid out for PyTorch; ten experiences unless told otherwise. The pictures
    /// stay on the disk ([`image_folder_on_disk`]), so give the run loader workers.
    ///
    /// Every picture is scaled to cover 256 x 256. In training 224 x 224 of it are taken at a random place and
    /// mirrored at random; in evaluation the middle; normalised. Avalanche's training crop also varies size
    /// and shape (`RandomResizedCrop`).
    ///
    /// # Errors
    /// As [`image_folder_on_disk`].
    pub fn from_folders(train: &Path, test: &Path) -> Result<NcBenchmark> {
        let [train, test] =
            [train, test].map(|dir| image_folder_on_disk(dir, "ImageNet", [256; 2]));
        let crop = Transform::imagenet().random_crop(224, 224, 0);
        let transforms = TransformGroups {
            train: crop.random_horizontal_flip(0.5),
            eval: Transform::imagenet().center_crop(224, 224),
        };
        let builder = NcBenchmark::new(train?, test?, transforms).name("SplitImageNet");
        Ok(builder.n_experiences(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Group;

    /// One white image of `side` x `side` for each class.
    fn data(side: usize, classes: u32) -> (Dataset, Dataset) {
        let pixels = vec![255; classes as usize * 3 * side * side];
        let targets: Vec<u32> = (0..classes).collect();
        let data = Dataset::from_u8("d", [3, side, side], pixels, targets, classes as usize);
        let data = data.unwrap();
        (data.clone(), data)
    }

    #[test]
    fn imagenet_comes_from_two_folders_of_pictures() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["n01", "n02"] {
            for part in ["train", "val"] {
                let folder = dir.path().join(part).join(class);
                std::fs::create_dir_all(&folder).unwrap();
                let white = image::RgbImage::from_pixel(30, 20, image::Rgb([255; 3]));
                white.save(folder.join("1.JPEG")).unwrap();
            }
        }
        let [train, val] = ["train", "val"].map(|part| dir.path().join(part));
        let builder = SplitImageNet::from_folders(&train, &val).unwrap();
        let benchmark = builder.n_experiences(2).build().unwrap();
        let view = benchmark.test_stream()[1].dataset().clone();
        assert_eq!((view.len(), view.shape()), (1, [3, 224, 224]));
        let red = view.images(Group::Eval)[[0, 0, 100, 100]];
        assert!((red - (1.0 - 0.485) / 0.229).abs() <= 0.02, "{red}");
        let elsewhere = dir.path().join("test");
        assert!(SplitImageNet::from_folders(&train, &elsewhere).is_err());
    }

    #[test]
    fn constants_and_orders_are_those_of_avalanche_and_of_the_paper() {
        let (c10, c100, tiny) = (data(32, 10), data(32, 100), data(64, 200));
        for (builder, n, first, red, random) in [
            (
                SplitCifar10::from_datasets(c10.0.clone(), c10.1.clone()).n_experiences(5),
                5,
                vec![4, 1],
                (1.0 - 0.4914) / 0.2023,
                true,
            ),
            (
                SplitCifar10::paper(c10.0, c10.1),
                5,
                vec![0, 1],
                (1.0 - 0.4914) / 0.2470,
                true,
            ),
            (
                SplitCifar100::from_datasets(c100.0.clone(), c100.1.clone())
                    .n_experiences(50)
                    .seed(42),
                50,
                vec![42, 96],
                (1.0 - 0.5071) / 0.2673,
                true,
            ),
            (
                SplitCifar100::paper(c100.0, c100.1),
                10,
                (0..10).collect(),
                (1.0 - 0.5071) / 0.2675,
                true,
            ),
            (
                SplitTinyImageNet::from_datasets(tiny.0.clone(), tiny.1.clone())
                    .n_experiences(100)
                    .seed(7),
                100,
                vec![15, 95],
                (1.0 - 0.4914) / 0.2023,
                true,
            ),
            (
                SplitTinyImageNet::paper(tiny.0, tiny.1),
                10,
                (0..20).collect(),
                (1.0 - 0.4802) / 0.2770,
                true,
            ),
        ] {
            let benchmark = builder.build().unwrap();
            assert_eq!(benchmark.n_experiences(), n);
            assert_eq!(benchmark.original_classes_in_exp()[0], first);
            let view = benchmark.train_stream()[0].dataset();
            let image = view.images(Group::Eval);
            let found: f32 = image[[0, 0, 0, 0]];
            assert!(
                (found - red).abs() <= 1e-6,
                "{}: {found} for {red}",
                benchmark.name()
            );
            assert_eq!(view.transforms(0).train.is_random(), random);
            assert!(!view.transforms(0).eval.is_random());
        }
    }

    /// `random.seed(3); random.sample(range(10, 110), 100)` begins 40, 85, 79, 26.
    #[test]
    fn cifar110_is_cifar10_and_then_cifar100_in_pythons_order() {
        let build = |n| {
            let builder = SplitCifar110::from_datasets(data(32, 10), data(32, 100), 3);
            builder.n_experiences(n).build()
        };
        let benchmark = build(6).unwrap();
        assert_eq!(benchmark.n_classes_per_exp(), [10, 20, 20, 20, 20, 20]);
        assert_eq!(
            benchmark.classes_order()[..14],
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 40, 85, 79, 26]
        );
        assert_eq!(benchmark.n_classes(), 110);
        let test = benchmark.test_stream()[1].dataset();
        assert_eq!(test.len(), 20);
        let at = (0..20).find(|&i| test.target(i) == 40).unwrap();
        assert_eq!(test.source_index(at), 30, "class 30 of CIFAR-100");
        assert!(
            build(4)
                .unwrap_err()
                .to_string()
                .contains("divides 100 classes")
        );
    }
}
