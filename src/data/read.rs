//! Reading files that may be compressed, cut short or lie about their size.

use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

/// What to do about a damaged file.
pub(super) const FETCH_AGAIN: &str = "the file is damaged or of another kind, fetch it again";

/// Opens `path`; what is compressed with gzip (whatever its name says) is decompressed on the way.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let start = file.fill_buf().map_err(|source| Error::io("read", path, source))?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    })
}

/// Reads exactly `len` bytes up to the end of `reader`. `what` describes them for the message.
///
/// Memory grows with what arrives, never with `len` alone, so a header that promises too much
/// costs nothing.
pub(super) fn read_rest(
    reader: &mut dyn Read,
    len: u64,
    what: &str,
    path: &Path,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let end = reader.take(len.saturating_add(1)).read_to_end(&mut bytes);
    let found = match end {
        Err(source) => {
            return Err(read_error(source, &format!("{len} bytes of {what}"), path));
        }
        Ok(_) if bytes.len() as u64 == len => return Ok(bytes),
        Ok(_) if bytes.len() as u64 > len => "more".to_string(),
        Ok(_) => format!("only {}", bytes.len()),
    };
    Err(Error::format(path, format!("{len} bytes of {what}"), found, FETCH_AGAIN))
}

/// Reads the next `N` bytes, which hold `what`.
pub(super) fn read_head<const N: usize>(
    reader: &mut dyn Read,
    what: &str,
    path: &Path,
) -> Result<[u8; N]> {
    let mut head = [0; N];
    reader.read_exact(&mut head).map_err(|source| read_error(source, what, path))?;
    Ok(head)
}

/// The error for a failed read: damage in the file is told apart from trouble with the disk.
fn read_error(source: std::io::Error, expected: &str, path: &Path) -> Error {
    match source.kind() {
        ErrorKind::UnexpectedEof => Error::format(path, expected, "its end", FETCH_AGAIN),
        ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            Error::format(path, expected, format!("damaged data ({source})"), FETCH_AGAIN)
        }
        _ => Error::io("read", path, source),
    }
}
