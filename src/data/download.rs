//! Downloading the published data sets from their own public addresses.
//!
//! A file arrives under the name `FILE.part`. An interrupted download goes on where it stopped,
//! within a call and from one call to the next. Only content of the right size and SHA-256 gets
//! its final name, by a rename, so a file under that name is always whole.

use super::locate::Kind;
use crate::{Error, Result};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;

/// How often one address is asked again after its connection broke while bytes were coming.
const RESUMES: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest silence of a server.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The files of a data set.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The data set.
    pub kind: Kind,
    /// What is downloaded; nothing for a data set that is only looked for.
    pub files: &'static [File],
    /// The folder inside the one file, a `.tar.gz`, that is unpacked; `None` for files that stay
    /// as they are.
    pub unpack: Option<&'static str>,
}

/// A file to download.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its name, at the addresses and on disk.
    pub name: &'static str,
    /// Folders that hold it, each ending with `/`, tried in order.
    pub urls: &'static [&'static str],
    /// SHA-256 of its content, in lower-case hexadecimal digits.
    pub sha256: &'static str,
    /// Its size.
    pub bytes: u64,
}

const MNIST: &[&str] = &[
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
];
const FASHION_MNIST: &[&str] = &[
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
];
const CIFAR: &[&str] = &["https://www.cs.toronto.edu/~kriz/"];
const TINY_IMAGENET: &[&str] = &[
    "https://cs231n.stanford.edu/",
    "http://cs231n.stanford.edu/",
];

const fn file(
    urls: &'static [&'static str],
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
) -> File {
    File {
        name,
        urls,
        sha256,
        bytes,
    }
}

/// Where the files of `kind` are published.
pub fn source(kind: Kind) -> Source {
    const MNIST_FILES: &[File] = &[
        file(
            MNIST,
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        file(
            MNIST,
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        file(
            MNIST,
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        file(
            MNIST,
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ];
    const FASHION_FILES: &[File] = &[
        file(
            FASHION_MNIST,
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        file(
            FASHION_MNIST,
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        file(
            FASHION_MNIST,
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        file(
            FASHION_MNIST,
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ];
    const CIFAR10_FILES: &[File] = &[file(
        CIFAR,
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )];
    const CIFAR100_FILES: &[File] = &[file(
        CIFAR,
        "cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    )];
    const TINY_IMAGENET_FILES: &[File] = &[file(
        TINY_IMAGENET,
        "tiny-imagenet-200.zip",
        248_100_043,
        "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
    )];
    let (files, unpack) = match kind {
        Kind::Mnist => (MNIST_FILES, None),
        Kind::FashionMnist => (FASHION_FILES, None),
        Kind::Cifar10 => (CIFAR10_FILES, Some("cifar-10-batches-bin")),
        Kind::Cifar100 => (CIFAR100_FILES, Some("cifar-100-binary")),
        Kind::TinyImageNet => (TINY_IMAGENET_FILES, None),
        Kind::Core50 => (&[] as &[File], None),
    };
    Source {
        kind,
        files,
        unpack,
    }
}

/// Downloads `kind` into the folder `dest`, which is made if need be; what is complete there is
/// not downloaded again. CIFAR's archive is unpacked, then removed; Tiny-ImageNet's is read as it is.
///
/// `base_url` replaces the published addresses by one folder that holds the same files.
/// `progress` is told the file, how many bytes of it are there, and how many there will be.
///
/// # Errors
/// [`Error::DataMissing`] if no address gave a file of the right size and checksum, with the reason
/// of each, or if the data set is not downloaded by this program; [`Error::Io`] if it cannot be stored; [`Error::Format`] if an archive cannot be
/// unpacked.
pub fn get(
    kind: Kind,
    dest: &Path,
    base_url: Option<&str>,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<()> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(READ_TIMEOUT))
        .timeout_per_read(Some(READ_TIMEOUT))
        .build()
        .into();
    get_source(&agent, &source(kind), dest, base_url, progress)
}

fn get_source(
    agent: &Agent,
    source: &Source,
    dest: &Path,
    base_url: Option<&str>,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<()> {
    if source.files.is_empty() {
        let name = source.kind.name();
        let remedy = source.kind.remedy();
        return Err(Error::DataMissing(format!(
            "{name} has no checksum here to download it by; {remedy} and put it into {}",
            dest.display()
        )));
    }
    fs::create_dir_all(dest).map_err(|error| Error::io("create the folder", dest, error))?;
    if source
        .unpack
        .is_some_and(|folder| dest.join(folder).is_dir())
    {
        return Ok(());
    }
    for file in source.files {
        let path = dest.join(file.name);
        if path.is_file() && mismatch(file, &path)?.is_none() {
            progress(file.name, file.bytes, file.bytes);
        } else {
            let published = file.urls.iter().map(|base| format!("{base}{}", file.name));
            let urls: Vec<String> = match base_url {
                Some(base) => vec![format!("{}/{}", base.trim_end_matches('/'), file.name)],
                None => published.collect(),
            };
            get_file(agent, file, &urls, &path, progress)?;
        }
        if let Some(folder) = source.unpack {
            unpack(&path, dest, folder)?;
            fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}

fn get_file(
    agent: &Agent,
    file: &File,
    urls: &[String],
    path: &Path,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<()> {
    let part = PathBuf::from(format!("{}.part", path.display()));
    let mut reasons = Vec::new();
    for url in urls {
        match fetch(agent, file, url, &part, progress)? {
            Some(reason) => reasons.push(format!("{url}: {reason}")),
            None => match mismatch(file, &part)? {
                None => {
                    return fs::rename(&part, path)
                        .map_err(|error| Error::io("move the download to", path, error));
                }
                Some(reason) => {
                    remove(&part)?;
                    reasons.push(format!("{url}: {reason}"));
                }
            },
        }
    }
    Err(Error::DataMissing(format!(
        "cannot download {} ({}); check the network and try again, or put the file into {} by hand",
        file.name,
        reasons.join("; "),
        path.parent().unwrap_or(path).display()
    )))
}

/// Fills `part` from `url`, going on where it ends. `Some` says why it is not complete; what there
/// is stays for the next attempt.
fn fetch(
    agent: &Agent,
    file: &File,
    url: &str,
    part: &Path,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Option<String>> {
    let mut reason = String::new();
    for _ in 0..=RESUMES {
        let before = size(part)?;
        if before > file.bytes {
            remove(part)?;
            continue;
        }
        if before == file.bytes {
            return Ok(None);
        }
        match fetch_once(agent, file, url, part, before, progress)? {
            None => return Ok(None),
            Some(why) => reason = why,
        }
        if size(part)? <= before {
            break;
        }
    }
    Ok(Some(reason))
}

fn fetch_once(
    agent: &Agent,
    file: &File,
    url: &str,
    part: &Path,
    have: u64,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Option<String>> {
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        Err(error) => return Ok(Some(one_line(&error))),
    };
    let range = response
        .headers()
        .get("content-range")
        .and_then(|range| range.to_str().ok());
    let start = match response.status().as_u16() {
        200 => 0, // The whole file, whatever was asked for.
        206 if range.is_some_and(|range| range.starts_with(&format!("bytes {have}-"))) => have,
        416 => {
            remove(part)?;
            return Ok(Some("the server knows no such part of the file".into()));
        }
        status => return Ok(Some(format!("the server answered {status}"))),
    };
    let storing = |error| Error::io("write", part, error);
    let mut out = if start == 0 {
        fs::File::create(part).map_err(storing)?
    } else {
        OpenOptions::new()
            .append(true)
            .open(part)
            .map_err(storing)?
    };
    let mut body = response.into_body().into_reader();
    let (mut done, mut buffer) = (start, vec![0; 1 << 16]);
    progress(file.name, done, file.bytes);
    let outcome = loop {
        match body.read(&mut buffer) {
            Ok(0) => break (done < file.bytes).then(|| format!("ended after {done} bytes")),
            Ok(n) => {
                done += n as u64;
                if done > file.bytes {
                    drop(out);
                    remove(part)?;
                    return Ok(Some(format!("more than the {} bytes expected", file.bytes)));
                }
                out.write_all(&buffer[..n]).map_err(storing)?;
                progress(file.name, done, file.bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(one_line(&error)),
        }
    };
    out.sync_all().map_err(storing)?;
    Ok(outcome)
}

/// Says how the file at `path` differs from what was published, if it does.
fn mismatch(file: &File, path: &Path) -> Result<Option<String>> {
    let found = size(path)?;
    if found != file.bytes {
        return Ok(Some(format!(
            "expected {} bytes, found {found}",
            file.bytes
        )));
    }
    let reading = |error| Error::io("read", path, error);
    let mut content = fs::File::open(path).map_err(reading)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match content.read(&mut buffer).map_err(reading)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((found != file.sha256).then(|| {
        format!(
            "wrong checksum: expected SHA-256 {}, found {found}",
            file.sha256
        )
    }))
}

/// Unpacks the files of `folder` in the archive into `dest/folder`, which appears when complete.
///
/// Only plain files directly in `folder` are written, under their last name, so no entry can
/// reach another place.
fn unpack(archive: &Path, dest: &Path, folder: &str) -> Result<()> {
    let bad = |found: String| {
        let remedy = "remove it and download it again";
        Error::format(
            archive,
            format!("a .tar.gz with the folder {folder}"),
            found,
            remedy,
        )
    };
    let damaged = |error: io::Error| bad(format!("damage ({error})"));
    let content = fs::File::open(archive).map_err(|error| Error::io("open", archive, error))?;
    let part = dest.join(format!("{folder}.part"));
    if part.is_dir() {
        fs::remove_dir_all(&part).map_err(|error| Error::io("remove", &part, error))?;
    }
    fs::create_dir(&part).map_err(|error| Error::io("create the folder", &part, error))?;
    let mut found = false;
    let mut archive = tar::Archive::new(GzDecoder::new(io::BufReader::new(content)));
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let Ok(name) = path.strip_prefix(folder) else {
            continue;
        };
        let is_name = name
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !entry.header().entry_type().is_file() || !is_name || name.components().count() != 1 {
            continue;
        }
        let target = part.join(name);
        let storing = |error| Error::io("write", &target, error);
        let mut out = fs::File::create_new(&target).map_err(storing)?;
        // The archive's checksum was right, so what fails here is the disk.
        io::copy(&mut entry, &mut out).map_err(storing)?;
        found = true;
    }
    if !found {
        return Err(bad("no file of it".into()));
    }
    let target = dest.join(folder);
    fs::rename(&part, &target).map_err(|error| Error::io("move the files to", &target, error))
}

fn size(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn one_line(error: &dyn std::error::Error) -> String {
    error.to_string().replace('\n', " ")
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
