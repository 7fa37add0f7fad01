//! A tenth of MNIST inside the program: a first run needs no download.
//!
//! The file holds the first 600 training and the first 100 test images of each digit, in the order
//! of the original files; `scripts/make-embedded-mnist` makes it and says how it is laid out.
//! It comes under its own licence, CC BY-SA 3.0: see NOTICE.

use super::Dataset;
use flate2::read::GzDecoder;
use std::io::Read;
use std::sync::LazyLock;

static PACKED: &[u8] = include_bytes!("../../assets/mnist-tenth.bin.gz");

const N_TRAIN: usize = 6_000;
const N_TEST: usize = 1_000;
const SIDE: usize = 28;
const N_CLASSES: usize = 10;
const NAME: &str = "mnist-tenth";

static TENTH: LazyLock<(Dataset, Dataset)> = LazyLock::new(|| {
    let content = unpack();
    let (train, test) = content.split_at(N_TRAIN * (SIDE * SIDE + 1));
    (part(train, N_TRAIN), part(test, N_TEST))
});

/// A class-balanced tenth of MNIST: 6,000 training and 1,000 test images of 1 x 28 x 28 bytes.
///
/// Unpacked at the first call; later calls share its memory. The images are
/// Y. LeCun, C. Cortes and C. Burges's, under CC BY-SA 3.0.
///
/// ```
/// let (train, test) = unforget::data::embedded::mnist_tenth();
/// assert_eq!((train.len(), test.len()), (6_000, 1_000));
/// assert_eq!(train.shape(), [1, 28, 28]);
/// ```
pub fn mnist_tenth() -> (Dataset, Dataset) {
    TENTH.clone()
}

fn unpack() -> Vec<u8> {
    let mut content = Vec::with_capacity((N_TRAIN + N_TEST) * (SIDE * SIDE + 1));
    // The file is part of the program: that it unpacks is checked by a test, not by each user.
    GzDecoder::new(PACKED)
        .read_to_end(&mut content)
        .expect("the embedded images unpack");
    content
}

/// `n` images and, after them, their `n` labels.
fn part(content: &[u8], n: usize) -> Dataset {
    let (pixels, labels) = content.split_at(n * SIDE * SIDE);
    let targets = labels.iter().map(|&label| label.into()).collect();
    Dataset::from_u8(NAME, [1, SIDE, SIDE], pixels.to_vec(), targets, N_CLASSES)
        .expect("the embedded images are whole")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pixels;
    use sha2::{Digest, Sha256};

    fn counts(dataset: &Dataset) -> [usize; N_CLASSES] {
        let mut counts = [0; N_CLASSES];
        for &target in dataset.targets() {
            counts[target as usize] += 1;
        }
        counts
    }

    #[test]
    fn every_class_has_its_share() {
        let (train, test) = mnist_tenth();
        assert_eq!(counts(&train), [600; N_CLASSES]);
        assert_eq!(counts(&test), [100; N_CLASSES]);
        assert_eq!((train.n_classes(), test.n_classes()), (10, 10));
    }

    #[test]
    fn the_content_is_what_the_script_made() {
        let digest = Sha256::digest(unpack());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "5d600f56a9059f04b8ec2b0d31b90bcc51f3f5221eb0d6f22dfaac490f38f7f7"
        );
    }

    /// The original training labels begin 5 0 4 1 9, the test labels 7 2 1 0 4: file order is kept.
    #[test]
    fn images_stay_in_the_order_of_the_file() {
        let (train, test) = mnist_tenth();
        assert_eq!(train.targets()[..5], [5, 0, 4, 1, 9]);
        assert_eq!(test.targets()[..5], [7, 2, 1, 0, 4]);
        // The ink of the first digit, a five, lies inside the margin that MNIST leaves.
        let Pixels::U8(pixels) = train.pixels() else {
            panic!("MNIST is stored as bytes")
        };
        assert!(pixels[..4 * SIDE].iter().all(|&pixel| pixel == 0));
        assert_eq!(
            pixels[..SIDE * SIDE]
                .iter()
                .map(|&p| u32::from(p))
                .sum::<u32>(),
            27_525
        );
    }
}
