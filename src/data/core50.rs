//! CORe50: videos of household objects, cut into training batches by lists of files.
//!
//! V. Lomonaco and D. Maltoni, "CORe50: a new dataset and benchmark for continuous object
//! recognition", CoRL 2017. The pictures lie in `core50_128x128` or `core50_32x32` as
//! `sS/oO/C_SS_OO_FFF.png` (session, object, frame); a scenario's folder holds for each of ten runs one
//! list of training pictures a batch and one of all test pictures, lines of a path and a label.

use super::Dataset;
use super::pictures::{Location, Store};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

const REMEDY: &str = "download it from https://vlomonaco.github.io/core50: core50_128x128.zip or \
                      core50_32x32.zip, batches_filelists.zip and batches_filelists_NICv2.zip, \
                      unpacked into one folder";
/// Objects of one category have consecutive numbers.
const OBJECTS_PER_CATEGORY: u32 = 5;
const N_OBJECTS: u32 = 50;

/// What changes from one training batch to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Core50Scenario {
    /// New instances: 8 batches, each all objects in another session.
    Ni,
    /// New classes: 9 batches, 10 objects first, then 5 each.
    Nc,
    /// New instances and classes: 79 batches.
    Nic,
    /// NICv2 with 79 batches.
    NicV2In79,
    /// NICv2 with 196 batches.
    NicV2In196,
    /// NICv2 with 391 batches; Avalanche's default.
    NicV2In391,
}

impl Core50Scenario {
    /// The folder of the lists and the number of training batches.
    fn lists(self) -> (&'static str, usize) {
        match self {
            Core50Scenario::Ni => ("batches_filelists/NI_inc", 8),
            Core50Scenario::Nc => ("batches_filelists/NC_inc", 9),
            Core50Scenario::Nic => ("batches_filelists/NIC_inc", 79),
            Core50Scenario::NicV2In79 => ("NIC_v2_79", 79),
            Core50Scenario::NicV2In196 => ("NIC_v2_196", 196),
            Core50Scenario::NicV2In391 => ("NIC_v2_391", 391),
        }
    }
}

/// One run of a scenario.
#[derive(Clone, Debug)]
pub struct Core50Run {
    /// Every training picture that a list names, once.
    pub train: Dataset,
    /// The complete test set.
    pub test: Dataset,
    /// The places in `train` of each batch's pictures.
    pub batches: Vec<Vec<u32>>,
}

/// Reads run `run` (0 to 9) of a scenario from the unpacked archives in `dir`.
///
/// At the object level there are 50 classes, numbered as the lists do; otherwise the 10 categories,
/// five objects each, by the object's number in the path. `mini` takes the pictures of 32 x 32 instead
/// of those of 128 x 128, of which one run fills several gigabytes of memory.
///
/// # Errors
/// [`Error::Config`] if there is no such run; [`Error::DataMissing`] if a list or a picture is not
/// there; [`Error::Format`] for a line or a picture that cannot be read.
pub fn core50_run(
    dir: &Path,
    scenario: Core50Scenario,
    run: usize,
    object_level: bool,
    mini: bool,
) -> Result<Core50Run> {
    if run > 9 {
        return Err(Error::config("run", "0 to 9", run));
    }
    let (lists, n) = scenario.lists();
    let mut files = Store::open(Location::Folder(dir.into()), "", REMEDY)?;
    let mut read = |name: &str| {
        let name = format!("{lists}/run{run}/{name}_filelist.txt");
        let lines = files.lines(&name, REMEDY)?;
        let entry = |line: &String| {
            entry(line, object_level).ok_or_else(|| {
                let expected = "lines of a path and a label from 0 to 49";
                Error::format(files.path(&name), expected, format!("{line:?}"), REMEDY)
            })
        };
        lines.iter().map(entry).collect::<Result<Vec<_>>>()
    };
    let train = (0..n)
        .map(|batch| read(&format!("train_batch_{batch:02}")))
        .collect::<Result<Vec<_>>>()?;
    let test = read("test")?;

    let (mut places, mut first) = (HashMap::new(), Vec::new());
    let batches = (train.iter())
        .map(|batch| {
            let place = |(name, label): &(String, u32)| {
                *places.entry((name.clone(), *label)).or_insert_with(|| {
                    first.push((name.clone(), *label));
                    first.len() as u32 - 1
                })
            };
            batch.iter().map(place).collect()
        })
        .collect();
    let pictures = if mini {
        "core50_32x32"
    } else {
        "core50_128x128"
    };
    let mut store = Store::Folder(dir.join(pictures));
    let classes = if object_level {
        N_OBJECTS
    } else {
        N_OBJECTS / OBJECTS_PER_CATEGORY
    };
    let mut dataset = |entries: Vec<(String, u32)>| {
        let (names, targets): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let (pixels, shape) = store.pictures(&names, REMEDY)?;
        Dataset::from_u8("core50", shape, pixels, targets, classes as usize)
    };
    Ok(Core50Run {
        train: dataset(first)?,
        test: dataset(test)?,
        batches,
    })
}

/// Whether `dir` holds pictures of CORe50.
pub(super) fn is_folder(dir: &Path) -> bool {
    ["core50_128x128", "core50_32x32"]
        .iter()
        .any(|pictures| dir.join(pictures).is_dir())
}

/// The path and the label of a line.
fn entry(line: &str, object_level: bool) -> Option<(String, u32)> {
    let (path, label) = line.rsplit_once(' ')?;
    let inside = Path::new(path).components();
    let plain = inside
        .clone()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    let label: u32 = label.parse().ok().filter(|&label| label < N_OBJECTS)?;
    if !plain || inside.count() != 3 {
        return None;
    }
    if object_level {
        return Some((path.into(), label));
    }
    let object: u32 = path.split('/').nth(1)?.strip_prefix('o')?.parse().ok()?;
    let category = object.checked_sub(1)? / OBJECTS_PER_CATEGORY;
    (object <= N_OBJECTS).then(|| (path.into(), category))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::data::Pixels;
    use image::{Rgb, RgbImage};

    /// Two sessions of objects 1, 2 and 6 in two sizes; in batch b of NI and of NICv2 session
    /// `b mod 2 + 1`, and as test pictures all of session 1. NC numbers the objects 7, 8, 9.
    pub(crate) fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = |session, object| format!("s{session}/o{object}/C_0{session}_0{object}_000.png");
        for (pictures, side) in [("core50_32x32", 32), ("core50_128x128", 128)] {
            for (session, object) in [(1, 1), (1, 2), (1, 6), (2, 1), (2, 2), (2, 6)] {
                let at = dir.path().join(pictures).join(path(session, object));
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                let colour = Rgb([object, 100 * session, side as u8]);
                RgbImage::from_pixel(side, side, colour).save(at).unwrap();
            }
        }
        for scenario in [
            Core50Scenario::Ni,
            Core50Scenario::Nc,
            Core50Scenario::NicV2In79,
        ] {
            let (lists, n) = scenario.lists();
            let lists = dir.path().join(lists).join("run3");
            std::fs::create_dir_all(&lists).unwrap();
            let label = |object: u8| match (scenario, object) {
                (Core50Scenario::Nc, 6) => 9,
                (Core50Scenario::Nc, object) => 6 + object,
                (_, object) => object - 1,
            };
            let list = |session| {
                let line = |object| format!("{} {}\n", path(session, object), label(object));
                [1, 2, 6].map(line).concat()
            };
            for batch in 0..n {
                let name = format!("train_batch_{batch:02}_filelist.txt");
                std::fs::write(lists.join(name), list(batch as u8 % 2 + 1)).unwrap();
            }
            std::fs::write(lists.join("test_filelist.txt"), list(1)).unwrap();
        }
        dir
    }

    #[test]
    fn lists_say_what_is_in_a_batch() {
        let dir = folder();
        for (scenario, n, labels) in [
            (Core50Scenario::Ni, 8, [0, 1, 5]),
            (Core50Scenario::Nc, 9, [7, 8, 9]),
            (Core50Scenario::NicV2In79, 79, [0, 1, 5]),
        ] {
            let run = core50_run(dir.path(), scenario, 3, true, true).unwrap();
            assert_eq!(run.batches.len(), n);
            assert_eq!(run.batches[..3], [[0, 1, 2], [3, 4, 5], [0, 1, 2]]);
            assert_eq!(run.train.targets(), [labels, labels].concat());
            assert_eq!(
                (run.test.targets(), run.test.n_classes()),
                (&labels[..], 50)
            );
            assert_eq!(run.train.shape(), [3, 32, 32]);
            let Pixels::U8(pixels) = run.train.pixels() else {
                panic!("bytes stay bytes")
            };
            let first: Vec<u8> = pixels[5 * 3 * 1024..]
                .iter()
                .step_by(1024)
                .copied()
                .collect();
            assert_eq!(first, [6, 200, 32], "object 6 in session 2");
            let run = core50_run(dir.path(), scenario, 3, false, false).unwrap();
            assert_eq!(
                (run.test.targets(), run.test.n_classes()),
                (&[0, 0, 1][..], 10)
            );
            assert_eq!(run.test.shape(), [3, 128, 128]);
        }
        assert!(is_folder(dir.path()) && !is_folder(&dir.path().join("NIC_v2_79")));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let dir = folder();
        let error = |scenario, run| {
            let run = core50_run(dir.path(), scenario, run, true, true);
            run.map(|_| ()).unwrap_err().to_string()
        };
        assert!(error(Core50Scenario::Ni, 10).contains("0 to 9, found 10"));
        let message = error(Core50Scenario::NicV2In391, 3);
        assert!(
            message.contains("NIC_v2_391/run3/train_batch_00_filelist.txt"),
            "{message}"
        );
        assert!(message.contains("batches_filelists_NICv2.zip"), "{message}");
        let list = dir
            .path()
            .join("batches_filelists/NI_inc/run3/test_filelist.txt");
        for line in [
            "s1/o1/C_01_01_000.png",
            "s1/o1/x.png 50",
            "../o1/x.png 1",
            "/s/o1/x.png 1",
        ] {
            std::fs::write(&list, line).unwrap();
            let message = error(Core50Scenario::Ni, 3);
            assert!(message.contains(&format!("{line:?}")), "{message}");
        }
        std::fs::write(&list, "s1/o1/C_01_01_999.png 1").unwrap();
        let message = error(Core50Scenario::Ni, 3);
        assert!(
            message.contains("C_01_01_999.png: expected a file"),
            "{message}"
        );
    }
}
