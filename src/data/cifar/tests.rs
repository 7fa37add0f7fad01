use super::*;
use crate::data::Pixels;

/// One record whose pixels are all `fill`, but for the first green one, which is 7.
fn record(labels: &[u8], fill: u8) -> Vec<u8> {
    let mut record = labels.to_vec();
    record.extend([fill; PIXELS]);
    record[labels.len() + 1024] = 7;
    record
}

fn folder10(dir: &Path) {
    for i in 1..=5u8 {
        let content = record(&[i], 10 * i);
        std::fs::write(dir.join(format!("data_batch_{i}.bin")), content).unwrap();
    }
    let content = [record(&[9], 1), record(&[0], 2)].concat();
    std::fs::write(dir.join("test_batch.bin"), content).unwrap();
}

#[test]
fn the_batches_of_cifar10_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("cifar-10-batches-bin");
    std::fs::create_dir(&inner).unwrap();
    folder10(&inner);
    for dir in [dir.path(), &inner] {
        let (train, test) = cifar10_folder(dir).unwrap();
        assert_eq!(train.targets(), [1, 2, 3, 4, 5]);
        assert_eq!(test.targets(), [9, 0]);
        assert_eq!((train.shape(), train.n_classes()), ([3, 32, 32], 10));
        let Pixels::U8(pixels) = train.pixels() else {
            panic!("bytes stay bytes")
        };
        assert_eq!(pixels[PIXELS + 1023..PIXELS + 1026], [20, 7, 20]);
    }
}

#[test]
fn the_target_of_cifar100_is_the_fine_label() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("train.bin"), record(&[19, 99], 3)).unwrap();
    std::fs::write(dir.path().join("test.bin"), record(&[0, 42], 3)).unwrap();
    let (train, test) = cifar100_folder(dir.path()).unwrap();
    assert_eq!((train.targets(), test.targets()), (&[99][..], &[42][..]));
    assert_eq!(train.n_classes(), 100);
    let Pixels::U8(pixels) = train.pixels() else {
        panic!("bytes stay bytes")
    };
    assert_eq!(pixels[1023..1026], [3, 7, 3]);
}

#[test]
fn damage_is_named() {
    for (content, wanted) in [
        (Vec::new(), "found 0 bytes"),
        (record(&[1], 0)[1..].to_vec(), "found 3072 bytes"),
        (record(&[10], 0), "label 10 in record 0"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        folder10(dir.path());
        std::fs::write(dir.path().join("data_batch_3.bin"), content).unwrap();
        let message = cifar10_folder(dir.path()).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
        assert!(message.contains("data_batch_3.bin"), "{message:?}");
        assert!(message.contains("unforget data get cifar10"), "{message:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let error = cifar100_folder(dir.path()).unwrap_err();
    assert!(matches!(error, Error::DataMissing(_)), "{error}");
}

/// A batch as Python 2 pickled it with protocol 2: byte strings, and an array of bytes.
fn pickled(key: &str, labels: &[u8], pixels: &[u8]) -> Vec<u8> {
    fn text(text: &str) -> Vec<u8> {
        [&[b'U', text.len() as u8], text.as_bytes()].concat()
    }
    let mut pickle = b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x06a nameq\x03".to_vec();
    pickle.extend(text(key));
    pickle.extend(b"q\x04]q\x05(");
    pickle.extend(labels.iter().flat_map(|&label| [b'K', label]));
    pickle.extend(b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\n");
    pickle.extend(b"q\x08K\x00\x85q\tU\x01b\x87Rq\n(K\x01M");
    pickle.extend((labels.len() as u16).to_le_bytes());
    pickle.extend(b"M\x00\x0c\x86cnumpy\ndtype\nq\x0bU\x02u1K\x00K\x01\x87Rq\x0c(K\x03U\x01|");
    pickle.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
    pickle.extend((pixels.len() as u32).to_le_bytes());
    pickle.extend(pixels);
    pickle.extend(b"tbU\tfilenamesq\r]q\x0e(U\x05a.pngq\x0fU\x05b.pngq\x10eu.");
    pickle
}

/// The batches of CIFAR-10, one image each, and a test batch of two.
fn python10() -> Vec<(String, Vec<u8>)> {
    let pixels = |fill: u8| record(&[], fill);
    let mut files: Vec<_> = (1..=5u8)
        .map(|i| {
            (
                format!("data_batch_{i}"),
                pickled("labels", &[i], &pixels(10 * i)),
            )
        })
        .collect();
    let test = pickled("labels", &[9, 0], &[pixels(1), pixels(2)].concat());
    files.push(("test_batch".into(), test));
    files
}

fn archive(folder: &str, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{folder}/{name}"), &content[..])
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn the_python_version_is_the_same_data() {
    let binary = tempfile::tempdir().unwrap();
    folder10(binary.path());
    let want = cifar10_folder(binary.path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("cifar-10-batches-py");
    std::fs::create_dir(&inner).unwrap();
    for (name, content) in python10() {
        std::fs::write(inner.join(name), content).unwrap();
    }
    let packed = tempfile::tempdir().unwrap();
    let content = archive("cifar-10-batches-py", &python10());
    std::fs::write(packed.path().join("cifar-10-python.tar.gz"), content).unwrap();
    for dir in [dir.path(), &inner, packed.path()] {
        assert!(is_folder(dir, false) && !is_folder(dir, true));
        let (train, test) = cifar10_folder(dir).unwrap();
        assert_eq!(
            (train.targets(), test.targets()),
            (want.0.targets(), want.1.targets())
        );
        assert_eq!(
            (train.pixels(), test.pixels()),
            (want.0.pixels(), want.1.pixels())
        );
    }
    let hundred = tempfile::tempdir().unwrap();
    let files = [("train", 42), ("test", 99)].map(|(name, label)| {
        (
            name.to_owned(),
            pickled("fine_labels", &[label], &record(&[], 3)),
        )
    });
    let content = archive("cifar-100-python", &files);
    std::fs::write(hundred.path().join("cifar-100-python.tar.gz"), content).unwrap();
    let (train, test) = cifar100_folder(hundred.path()).unwrap();
    assert_eq!((train.targets(), test.targets()), (&[42][..], &[99][..]));
}

#[test]
fn a_damaged_pickle_is_named() {
    let pixels = record(&[], 0);
    let whole = pickled("labels", &[1], &pixels);
    for (content, wanted) in [
        (Vec::new(), "the end after 0 bytes"),
        (whole[..whole.len() - 1].to_vec(), "the end after"),
        (
            pickled("labels", &[1, 2], &pixels),
            "3072 bytes for 2 labels",
        ),
        (
            pickled("labels", &[10], &pixels),
            "label 10, not one of 0 to 9",
        ),
        (
            pickled("fine_labels", &[1], &pixels),
            "no list of numbers `labels`",
        ),
        (
            b"not a pickle".to_vec(),
            "unknown instruction 0x6e at byte 0",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut files = python10();
        files[2].1 = content;
        let content = archive("cifar-10-batches-py", &files);
        std::fs::write(dir.path().join("cifar-10-python.tar.gz"), content).unwrap();
        let message = cifar10_folder(dir.path()).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
        assert!(message.contains("data_batch_3"), "{message:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cifar-10-python.tar.gz");
    let content = archive("cifar-10-batches-py", &python10()[..4]);
    std::fs::write(&path, &content).unwrap();
    let message = cifar10_folder(dir.path()).unwrap_err().to_string();
    assert!(message.contains("no file data_batch_5 in it"), "{message}");
    std::fs::write(&path, &content[..content.len() / 2]).unwrap();
    let message = cifar10_folder(dir.path()).unwrap_err().to_string();
    assert!(message.contains("damage"), "{message}");
}
