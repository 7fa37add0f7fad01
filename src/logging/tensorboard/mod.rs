//! Event files for TensorBoard: records (`record.rs`) of protobuf messages (`proto.rs`).

mod histogram;
mod proto;
mod record;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, process};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use ndarray::Array3;
use prost::Message;

use self::proto::{Content, Image, Summary, Value, What};
use super::calendar::now;
use super::file::LogFile;
use crate::evaluation::Logger;
use crate::figure;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};
use crate::{Error, Result};

/// Avalanche's `TensorboardLogger`: writes every value as an event that TensorBoard shows.
///
/// | value | in TensorBoard |
/// |---|---|
/// | number | scalar (f32) |
/// | tensor | histogram of its finite values; one with two dimensions also as a picture, `NAME/figure`, unless the metric gives one, `NAME/image` |
/// | picture | image |
/// | serialised data | nothing |
///
/// The step is the count of training iterations. `tensorboard --logdir FOLDER` opens the folder, or a
/// folder of such folders to compare runs. A resumed run continues the file of the checkpoint; any
/// other run begins a new file, and TensorBoard shows all files of a folder as one run, so a new
/// run should have a folder of its own.
///
/// There is no logger for Weights & Biases: no crate writes its offline format (`wandb` on crates.io is
/// an empty placeholder). Its own program uploads event files: `wandb sync --sync-tensorboard FOLDER`.
///
/// ```
/// use unforget::evaluation::EvaluationPlugin;
/// use unforget::logging::TensorBoardLogger;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("tb_data");
/// let evaluator = EvaluationPlugin::default().logger(TensorBoardLogger::new(path)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TensorBoardLogger {
    folder: PathBuf,
    name: String,
    file: Option<LogFile>,
    bytes: Vec<u8>,
}

impl TensorBoardLogger {
    /// Writes into the folder `tb_log_dir`, which is made if there is none. (Avalanche's default is
    /// `./tb_data`.)
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be made.
    pub fn new(tb_log_dir: impl AsRef<Path>) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tb_log_dir.as_ref().to_path_buf();
        fs::create_dir_all(&folder).map_err(|e| Error::io("create the folder", &folder, e))?;
        // TensorBoard reads the files of a folder in the order of their names: time comes first,
        // and the rest keeps two writers apart. It knows such a file by the word "tfevents".
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(TensorBoardLogger {
            folder,
            name: format!(
                "events.out.tfevents.{:010}.unforget.{}.{count}",
                now(),
                process::id()
            ),
            file: None,
            bytes: Vec::new(),
        })
    }

    /// Appends the events collected in `bytes`.
    fn write(&mut self) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self
                .file
                .insert(LogFile::open(self.folder.join(&self.name))?),
        };
        if file.is_empty() {
            let mut start = Vec::new();
            push(&mut start, 0, What::FileVersion("brain.Event:2".into()));
            file.append(&start)?;
        }
        file.append(&self.bytes)
    }
}

impl Logger for TensorBoardLogger {
    fn on(&mut self, event: Event, _: &State, values: &[MetricValue]) -> Result<()> {
        self.bytes.clear();
        for value in values {
            // A metric that gives a picture of its matrix knows more about it.
            let drawn = |v: &MetricValue| v.name.strip_suffix("/image") == Some(&value.name);
            add(&mut self.bytes, value, !values.iter().any(drawn));
        }
        // The file is there from the start, so that TensorBoard can be opened at once.
        if self.bytes.is_empty() && event != Event::BeforeTraining {
            return Ok(());
        }
        self.write()
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("name", &self.name);
        match &self.file {
            Some(file) => file.save(out, "length"),
            None => out.put("length", &0_u64),
        }
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.name = from.get("name")?;
        let mut file = LogFile::open(self.folder.join(&self.name))?;
        file.load(from, "length")?;
        self.file = Some(file);
        Ok(())
    }
}

/// Appends the events of one value; with `draw`, also a picture of a matrix.
fn add(out: &mut Vec<u8>, MetricValue { name, value, x }: &MetricValue, draw: bool) {
    let mut push = |tag: &str, content| {
        let value = Value {
            tag: tag.to_string(),
            content: Some(content),
        };
        push(out, *x, What::Summary(Summary { value: vec![value] }));
    };
    match value {
        MetricData::Scalar(value) => push(name, Content::SimpleValue(*value as f32)),
        MetricData::Integer(value) => push(name, Content::SimpleValue(*value as f32)),
        MetricData::Image(picture) => {
            if let Some(image) = image(picture) {
                push(name, Content::Image(image));
            }
        }
        MetricData::Tensor(array) => {
            if let Some(histogram) = histogram::histogram(array.iter().copied()) {
                push(name, Content::Histo(histogram));
            }
            if draw
                && array.ndim() == 2
                && let Some(image) = image(&figure::matrix(array, &[]))
            {
                push(&format!("{name}/figure"), Content::Image(image));
            }
        }
        MetricData::Bytes(_) => {}
    }
}

/// Appends an event of this moment.
fn push(out: &mut Vec<u8>, step: u64, what: What) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let event = proto::Event {
        wall_time: time.map_or(0.0, |d| d.as_secs_f64()),
        step: i64::try_from(step).unwrap_or(i64::MAX),
        what: Some(what),
    };
    record::frame(&event.encode_to_vec(), out);
}

/// `picture` (`[height, width, 3]`) as a PNG file; `None` of one without pixels.
fn image(picture: &Array3<u8>) -> Option<Image> {
    let (height, width, channels) = picture.dim();
    assert_eq!(channels, 3, "a picture has the shape [height, width, 3]");
    let mut png = Cursor::new(Vec::new());
    let pixels: Vec<u8> = picture.iter().copied().collect();
    let (h, w) = (u32::try_from(height).ok()?, u32::try_from(width).ok()?);
    PngEncoder::new(&mut png)
        .write_image(&pixels, w, h, ExtendedColorType::Rgb8)
        .ok()?;
    Some(Image {
        height: i32::try_from(h).ok()?,
        width: i32::try_from(w).ok()?,
        colorspace: 3,
        encoded_image_string: png.into_inner(),
    })
}

#[cfg(test)]
mod tests;
