//! Event files read back.

use super::*;
use ndarray::{Array3, arr2};

/// The events of a file, after checking length and both checksums of every record.
fn events(bytes: &[u8]) -> Vec<proto::Event> {
    let mut rest = bytes;
    let mut out = Vec::new();
    let u32_at = |b: &[u8], at| u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(u32_at(rest, 8), record::masked_crc(&rest[..8]), "length");
        let data = &rest[12..12 + length];
        assert_eq!(u32_at(rest, 12 + length), record::masked_crc(data), "data");
        out.push(proto::Event::decode(data).unwrap());
        rest = &rest[16 + length..];
    }
    out
}

fn value(name: &str, value: MetricData) -> MetricValue {
    MetricValue {
        name: name.into(),
        value,
        x: 7,
    }
}

/// Tag and content of every value; the first event names the version.
fn contents(events: &[proto::Event]) -> Vec<(String, Content)> {
    let version = What::FileVersion("brain.Event:2".into());
    assert_eq!(events[0].what.as_ref(), Some(&version));
    let mut out = Vec::new();
    for event in &events[1..] {
        assert!(event.wall_time > 1.6e9 && event.step == 7, "{event:?}");
        let Some(What::Summary(summary)) = &event.what else {
            panic!("{event:?}");
        };
        for value in &summary.value {
            out.push((value.tag.clone(), value.content.clone().unwrap()));
        }
    }
    out
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(folder).unwrap().collect();
    assert_eq!(files.len(), 1);
    files[0].as_ref().unwrap().path()
}

#[test]
fn every_kind_of_value_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path().join("a/b")).unwrap();
    let picture = Array3::from_shape_fn((2, 3, 3), |(y, x, c)| (100 * y + 10 * x + c) as u8);
    for v in [
        value("scalar", MetricData::Scalar(0.25)),
        value("zero", MetricData::Scalar(0.0)),
        value("whole", MetricData::Integer(-3)),
        value("picture", MetricData::Image(picture.clone())),
        value("none", MetricData::Image(Array3::zeros((0, 3, 3)))),
        value("matrix", MetricData::Tensor(arr2(&[[1.0, 0.0]]).into_dyn())),
        value("weights", MetricData::Bytes(vec![1, 2])),
    ] {
        add(&mut logger.bytes, &v, true);
    }
    logger.write().unwrap();
    let path = only_file(&folder.path().join("a/b"));
    assert!(path.to_str().unwrap().contains("events.out.tfevents."));
    let found = contents(&events(&fs::read(path).unwrap()));
    let tags: Vec<_> = found.iter().map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(
        tags,
        [
            "scalar",
            "zero",
            "whole",
            "picture",
            "matrix",
            "matrix/figure"
        ]
    );
    assert_eq!(found[0].1, Content::SimpleValue(0.25));
    assert_eq!(
        found[1].1,
        Content::SimpleValue(0.0),
        "a zero is written, not left out"
    );
    assert_eq!(found[2].1, Content::SimpleValue(-3.0));
    let Content::Image(image) = &found[3].1 else {
        panic!("{:?}", found[3]);
    };
    assert_eq!((image.height, image.width, image.colorspace), (2, 3, 3));
    let decoded = image::load_from_memory(&image.encoded_image_string)
        .unwrap()
        .to_rgb8();
    assert_eq!(decoded.into_raw(), picture.into_raw_vec_and_offset().0);
    let Content::Histo(histogram) = &found[4].1 else {
        panic!("{:?}", found[4]);
    };
    assert_eq!((histogram.num, histogram.sum), (2.0, 1.0));
}

#[test]
fn a_resumed_run_continues_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = |logger: &mut TensorBoardLogger, name: &str| {
        logger.bytes.clear();
        add(
            &mut logger.bytes,
            &value(name, MetricData::Scalar(1.0)),
            true,
        );
        logger.write().unwrap();
    };
    let mut first = TensorBoardLogger::new(folder.path()).unwrap();
    log(&mut first, "kept");
    let mut noted = Snapshot::default();
    first.save(&mut noted);
    log(&mut first, "lost");

    let mut resumed = TensorBoardLogger::new(folder.path()).unwrap();
    resumed.load(&noted).unwrap();
    log(&mut resumed, "added");
    let found = contents(&events(&fs::read(only_file(folder.path())).unwrap()));
    let tags: Vec<_> = found.iter().map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(tags, ["kept", "added"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let error = TensorBoardLogger::new(file.join("tb"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("cannot create the folder ") && error.contains("file/tb"),
        "{error}"
    );
}
