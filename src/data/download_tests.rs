//! Downloads from a server on this machine that can cut, lie and refuse.

use super::*;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const NAME: &str = "numbers.bin";

/// 200 kB, more than one read of the connection.
fn content() -> Vec<u8> {
    (0..50_000u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

fn published(content: &[u8]) -> File {
    let digest = Sha256::digest(content);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    File {
        name: NAME,
        urls: &[],
        sha256: hex.leak(),
        bytes: content.len() as u64,
    }
}

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Reply {
    /// Sends what was asked for.
    Send,
    /// Announces it all but hangs up after so many bytes.
    Cut(usize),
    /// Sends the whole file though a part was asked for.
    IgnoreRange,
    /// 404.
    Refuse,
}

struct Server {
    url: String,
    /// The `Range` of each request, in order.
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    /// Answers with `replies` in turn, then with the last one.
    fn start(content: Vec<u8>, replies: &'static [Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ranges);
        std::thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let reply = replies[i.min(replies.len() - 1)];
                answer(stream.unwrap(), &content, reply, &seen);
            }
        });
        Server { url, ranges }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, content: &[u8], reply: Reply, seen: &Mutex<Vec<Option<String>>>) {
    let mut range = None;
    for line in BufReader::new(&stream).lines() {
        let line = line.unwrap();
        if line.is_empty() {
            break;
        }
        if let Some((_, value)) = line.to_ascii_lowercase().split_once("range: ") {
            range = Some(value.to_string());
        }
    }
    seen.lock().unwrap().push(range.clone());
    let start = range.and_then(|range| range["bytes=".len()..].trim_end_matches('-').parse().ok());
    let start: usize = if matches!(reply, Reply::IgnoreRange) {
        0
    } else {
        start.unwrap_or(0)
    };
    let body = &content[start..];
    let (status, sent) = match reply {
        Reply::Refuse => ("404 Not Found", 0),
        Reply::Cut(bytes) if start == 0 => ("200 OK", bytes),
        Reply::Cut(bytes) => ("206 Partial Content", bytes),
        _ if start == 0 => ("200 OK", body.len()),
        _ => ("206 Partial Content", body.len()),
    };
    let announced = if matches!(reply, Reply::Refuse) {
        0
    } else {
        body.len()
    };
    let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
    let mut stream = &stream;
    // The client may have gone already; that is its business.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {announced}\r\nContent-Range: {range}\r\n\
         Connection: close\r\n\r\n"
    );
    let _ = stream.write_all(&body[..sent]);
}

/// Goes to the server directly, whatever proxy the machine has.
fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

/// Downloads from `servers` in turn into `dir`.
fn download(dir: &Path, file: &File, servers: &[&Server]) -> Result<Vec<u64>> {
    let urls: Vec<String> = servers
        .iter()
        .map(|s| format!("{}/{NAME}", s.url))
        .collect();
    let mut told = Vec::new();
    let mut progress = |name: &str, done: u64, total: u64| {
        assert_eq!((name, total), (NAME, file.bytes));
        told.push(done);
    };
    get_file(&agent(), file, &urls, &dir.join(NAME), &mut progress)?;
    Ok(told)
}

fn assert_complete(dir: &Path) {
    assert!(
        fs::read(dir.join(NAME)).unwrap() == content(),
        "the content differs"
    );
    assert_eq!(
        fs::read_dir(dir).unwrap().count(),
        1,
        "something else was left behind"
    );
}

#[test]
fn a_whole_file_arrives_with_progress() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(content(), &[Reply::Send]);
    let told = download(dir.path(), &published(&content()), &[&server]).unwrap();
    assert_complete(dir.path());
    assert!(
        told.is_sorted() && told[0] == 0 && told.last() == Some(&200_000),
        "{told:?}"
    );
    assert_eq!(server.ranges(), [None]);
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(
        content(),
        &[Reply::Cut(70_000), Reply::Cut(30_000), Reply::Send],
    );
    download(dir.path(), &published(&content()), &[&server]).unwrap();
    assert_complete(dir.path());
    let ranges = [
        None,
        Some("bytes=70000-".into()),
        Some("bytes=100000-".into()),
    ];
    assert_eq!(server.ranges(), ranges);
}

#[test]
fn a_part_of_an_earlier_run_is_used() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("numbers.bin.part"), &content()[..150_000]).unwrap();
    let server = Server::start(content(), &[Reply::Send]);
    download(dir.path(), &published(&content()), &[&server]).unwrap();
    assert_complete(dir.path());
    assert_eq!(server.ranges(), [Some("bytes=150000-".into())]);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("numbers.bin.part"), &content()[..150_000]).unwrap();
    let server = Server::start(content(), &[Reply::IgnoreRange]);
    download(dir.path(), &published(&content()), &[&server]).unwrap();
    assert_complete(dir.path());
}

#[test]
fn wrong_content_is_not_put_in_place() {
    let mut wrong = content();
    wrong[123_456] ^= 1;
    let mut long = content();
    long.push(0);
    for (sent, wanted) in [
        (wrong, "wrong checksum"),
        (long, "more than the 200000 bytes"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(sent, &[Reply::Send]);
        let error = download(dir.path(), &published(&content()), &[&server]).unwrap_err();
        assert!(matches!(error, Error::DataMissing(_)));
        let message = error.to_string();
        assert!(
            message.contains(wanted) && message.contains(&server.url),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "{wanted}: a file was left"
        );
    }
}

#[test]
fn the_next_mirror_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let refuses = Server::start(content(), &[Reply::Refuse]);
    let sends = Server::start(content(), &[Reply::Send]);
    download(dir.path(), &published(&content()), &[&refuses, &sends]).unwrap();
    assert_complete(dir.path());
    let dir = tempfile::tempdir().unwrap();
    let error = download(dir.path(), &published(&content()), &[&refuses]).unwrap_err();
    assert!(error.to_string().contains("answered 404"), "{error}");
}

/// The whole path: complete files are passed over, the archive is unpacked and nothing escapes.
#[test]
fn an_archive_is_unpacked_inside_its_folder() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        // Written past the checks of `set_path`, as an attacker would.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    };
    add("set/train.bin", b"train");
    add("set/../escaped.bin", b"bad");
    add("../escaped.bin", b"bad");
    add("set/deep/other.bin", b"passed over");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&tar.into_inner().unwrap()).unwrap();
    let archive = packed.finish().unwrap();

    let outer = tempfile::tempdir().unwrap();
    let dest = outer.path().join("cache");
    let server = Server::start(archive.clone(), &[Reply::Send]);
    let files = vec![published(&archive)].leak();
    let source = Source {
        kind: Kind::Cifar100,
        files,
        unpack: Some("set"),
    };
    for _ in 0..2 {
        get_source(
            &agent(),
            &source,
            &dest,
            Some(&server.url),
            &mut |_, _, _| {},
        )
        .unwrap();
    }
    assert_eq!(server.ranges().len(), 1, "downloaded again");
    assert_eq!(fs::read(dest.join("set/train.bin")).unwrap(), b"train");
    assert_eq!(fs::read_dir(dest.join("set")).unwrap().count(), 1);
    assert_eq!(
        fs::read_dir(&dest).unwrap().count(),
        1,
        "archive or part left"
    );
    assert_eq!(
        fs::read_dir(outer.path()).unwrap().count(),
        1,
        "an entry escaped"
    );
}

#[test]
fn a_complete_file_is_not_downloaded_again_and_a_damaged_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(content(), &[Reply::Send]);
    let files = vec![published(&content())].leak();
    let source = Source {
        kind: Kind::Mnist,
        files,
        unpack: None,
    };
    for (stored, requests) in [(content(), 0), (vec![0; 200_000], 1)] {
        fs::write(dir.path().join(NAME), stored).unwrap();
        get_source(
            &agent(),
            &source,
            dir.path(),
            Some(&format!("{}/", server.url)),
            &mut |_, _, _| {},
        )
        .unwrap();
        assert_complete(dir.path());
        assert_eq!(server.ranges().len(), requests);
    }
}

#[test]
fn a_data_set_without_addresses_says_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("core50");
    let error = get(Kind::Core50, &dest, None, &mut |_, _, _| {}).unwrap_err();
    assert!(
        error.to_string().contains("vlomonaco.github.io/core50"),
        "{error}"
    );
    assert!(!dest.exists());
}

#[test]
fn the_published_files_are_described_sanely() {
    for kind in Kind::ALL {
        let source = source(kind);
        assert_eq!(source.kind, kind);
        for file in source.files {
            assert!(
                file.urls.iter().all(|url| url.ends_with('/')),
                "{}",
                file.name
            );
            let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            assert!(
                file.sha256.len() == 64 && file.sha256.chars().all(is_hex),
                "{}",
                file.name
            );
        }
    }
}
