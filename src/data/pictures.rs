//! Many pictures by name, out of a folder or a zip archive.

use super::folder::{append, decode_from};
use crate::{Error, Result};
use image::ImageReader;
use rayon::prelude::*;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;
use zip::result::ZipError;

/// Read at once, then decoded on all threads.
const PIECE: usize = 512;
/// No picture or list of these data sets comes near it.
const MAX_FILE: u64 = 1 << 28;

/// Where the files of a data set lie, under names with `/`.
pub(super) enum Store {
    Folder(PathBuf),
    Zip {
        path: PathBuf,
        archive: Box<ZipArchive<BufReader<File>>>,
        /// What comes before every name in the archive.
        prefix: String,
    },
}

impl Store {
    /// The folder `inner` in `dir`, `dir` itself if it holds `file`, or the archive `dir/zip` with the
    /// folder `inner` in it; `None` if `file` is in none.
    pub fn find(dir: &Path, inner: &str, zip: &str, file: &str) -> Option<Location> {
        let folders = [dir.join(inner), dir.to_path_buf()];
        let folder = folders.into_iter().find(|dir| dir.join(file).is_file());
        let archive = dir.join(zip);
        let archive = || archive.is_file().then_some(Location::Zip(archive));
        folder.map(Location::Folder).or_else(archive)
    }

    /// Opens what [`Store::find`] found.
    pub fn open(location: Location, inner: &str, remedy: &str) -> Result<Self> {
        let path = match location {
            Location::Folder(path) => return Ok(Store::Folder(path)),
            Location::Zip(path) => path,
        };
        let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
            let found = format!("damage ({error})");
            Error::format(&path, "a whole zip archive", found, remedy)
        })?;
        Ok(Store::Zip {
            path,
            archive: Box::new(archive),
            prefix: format!("{inner}/"),
        })
    }

    /// The path of a file in messages.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Store::Folder(dir) => dir.join(name),
            Store::Zip { path, prefix, .. } => path.join(format!("{prefix}{name}")),
        }
    }

    /// The content of a file.
    pub fn read(&mut self, name: &str, remedy: &str) -> Result<Vec<u8>> {
        let at = self.path(name);
        let missing = || {
            let at = at.display();
            Error::DataMissing(format!("{at}: expected a file, found none; {remedy}"))
        };
        match self {
            Store::Folder(_) if !at.is_file() => Err(missing()),
            Store::Folder(_) => std::fs::read(&at).map_err(|error| Error::io("read", &at, error)),
            Store::Zip {
                archive, prefix, ..
            } => {
                let damaged = |error: &dyn std::fmt::Display| {
                    let found = format!("damage ({error})");
                    Error::format(&at, "a whole zip archive", found, remedy)
                };
                let entry = match archive.by_name(&format!("{prefix}{name}")) {
                    Ok(entry) => entry,
                    Err(ZipError::FileNotFound) => return Err(missing()),
                    Err(error) => return Err(damaged(&error)),
                };
                let mut content = Vec::new();
                let read = entry.take(MAX_FILE).read_to_end(&mut content);
                read.map_err(|error| damaged(&error))?;
                Ok(content)
            }
        }
    }

    /// The lines of a text file without spaces around them, empty ones left out.
    pub fn lines(&mut self, name: &str, remedy: &str) -> Result<Vec<String>> {
        let text = String::from_utf8(self.read(name, remedy)?)
            .map_err(|_| Error::format(self.path(name), "a text file", "other bytes", remedy))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }

    /// The names of the files right in `folder`, shorter names first, then by name, so that numbered
    /// files follow their numbers; hidden ones are left out.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> = match self {
            Store::Folder(dir) => {
                let dir = dir.join(folder);
                let read = || -> std::io::Result<Vec<String>> {
                    let names = std::fs::read_dir(&dir)?.map(|entry| {
                        let entry = entry?;
                        let is_file = entry.path().is_file();
                        Ok(is_file.then(|| entry.file_name().to_string_lossy().into_owned()))
                    });
                    names.filter_map(Result::transpose).collect()
                };
                read().map_err(|error| Error::io("read the folder", &dir, error))?
            }
            Store::Zip {
                archive, prefix, ..
            } => {
                let start = format!("{prefix}{folder}/");
                let inside = archive
                    .file_names()
                    .filter_map(|name| name.strip_prefix(&start));
                let files = inside.filter(|name| !name.is_empty() && !name.contains('/'));
                files.map(str::to_owned).collect()
            }
        };
        names.retain(|name| !name.starts_with('.'));
        names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        Ok(names)
    }

    /// The pictures in three channels, one after the other, all of one size, with their shape.
    pub fn pictures(&mut self, names: &[String], remedy: &str) -> Result<(Vec<u8>, [usize; 3])> {
        let (mut pixels, mut size) = (Vec::new(), None);
        for names in names.chunks(PIECE) {
            let contents = names.iter().map(|name| self.read(name, remedy));
            let contents = contents.collect::<Result<Vec<_>>>()?;
            let decoded: Vec<_> = (contents.par_iter().zip(names))
                .map(|(content, name)| {
                    decode_from(ImageReader::new(Cursor::new(content)), &self.path(name))
                })
                .collect();
            for (picture, name) in decoded.into_iter().zip(names) {
                let picture = picture?;
                let found = [picture.height() as usize, picture.width() as usize];
                let [height, width] = *size.get_or_insert(found);
                if found != [height, width] {
                    return Err(Error::format(
                        self.path(name),
                        format!("{height} x {width} pixels, as in the first picture"),
                        format!("{} x {}", found[0], found[1]),
                        remedy,
                    ));
                }
                append(&picture, 3, &mut pixels);
            }
        }
        let [height, width] = size.unwrap_or([1, 1]);
        Ok((pixels, [3, height, width]))
    }
}

/// A place where files were found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Location {
    Folder(PathBuf),
    Zip(PathBuf),
}
