//! Streams of small pieces of larger experiences.

use super::ni::shuffled;
use super::{Experience, Stream};
use crate::rng::TorchGenerator;
use crate::{Error, Result};

/// What a piece of an experience knows of the whole.
#[derive(Clone, Debug)]
pub struct SubExperience {
    origin_experience: Experience,
    is_first_subexp: bool,
    is_last_subexp: bool,
    sub_stream_length: usize,
    access_task_boundaries: bool,
}

impl SubExperience {
    /// The experience that this is a piece of.
    pub fn origin_experience(&self) -> &Experience {
        &self.origin_experience
    }

    /// Whether this is its first piece: the first after a change of the data.
    pub fn is_first_subexp(&self) -> bool {
        self.is_first_subexp
    }

    /// Whether this is its last piece: the last before a change of the data.
    pub fn is_last_subexp(&self) -> bool {
        self.is_last_subexp
    }

    /// How many pieces it was cut into.
    pub fn sub_stream_length(&self) -> usize {
        self.sub_stream_length
    }

    /// Whether a learner may look at all this.
    pub fn access_task_boundaries(&self) -> bool {
        self.access_task_boundaries
    }
}

/// How [`split_online_stream`] cuts; build it from [`Default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnlineOptions {
    /// Samples in a piece.
    pub experience_size: usize,
    /// The seed to shuffle each experience's samples by, the same for every experience; `None` keeps
    /// their order.
    pub shuffle: Option<u64>,
    /// Whether the last, smaller piece of an experience is left out.
    pub drop_last: bool,
    /// Whether a learner may know where experiences begin and end.
    pub access_task_boundaries: bool,
}

impl Default for OnlineOptions {
    /// Single samples, shuffled with seed 0, nothing dropped, no boundaries.
    fn default() -> Self {
        OnlineOptions {
            experience_size: 1,
            shuffle: Some(0),
            drop_last: false,
            access_task_boundaries: false,
        }
    }
}

/// Cuts every experience of a stream into small ones, for online continual learning (Avalanche's
/// `split_online_stream`). The new stream is called `NAME_online`; the pieces are experiences of their
/// own, numbered from 0, and know their classes.
///
/// Each piece has a [`SubExperience`]: [`Experience::sub_experience`] gives it to a learner that has
/// access to boundaries, [`Experience::sub_experience_for_logging`] to metrics always. The last piece of
/// an experience is always marked; Avalanche forgets it when the size divides the experience. Where
/// Avalanche makes the stream lazily, here only the lists of samples are made at once, so that it can be
/// indexed and sliced.
///
/// # Errors
/// [`Error::Config`] if the size is 0 or an experience is smaller than a piece and would be dropped.
pub fn split_online_stream(stream: &Stream, options: OnlineOptions) -> Result<Stream> {
    let size = options.experience_size;
    if size == 0 {
        return Err(Error::config("experience_size", "at least 1", 0));
    }
    let name = format!("{}_online", stream.name());
    let mut pieces = Vec::new();
    for experience in stream {
        let data = experience.dataset();
        let mut samples: Vec<u32> = (0..data.len() as u32).collect();
        if let Some(seed) = options.shuffle {
            samples = shuffled(&samples, &mut TorchGenerator::manual_seed(seed));
        }
        if options.drop_last {
            samples.truncate(samples.len() / size * size);
        }
        if samples.is_empty() {
            return Err(Error::config(
                "experience_size",
                format!("at most {}, if smaller pieces are dropped", data.len()),
                size,
            ));
        }
        let n = samples.len().div_ceil(size);
        for (i, piece) in samples.chunks(size).enumerate() {
            let whole = SubExperience {
                origin_experience: experience.clone(),
                is_first_subexp: i == 0,
                is_last_subexp: i + 1 == n,
                sub_stream_length: n,
                access_task_boundaries: options.access_task_boundaries,
            };
            let piece = Experience::from_dataset(data.subset(piece), pieces.len(), &name);
            pieces.push(piece.into_piece_of(whole));
        }
    }
    Ok(Stream::new(&name, pieces))
}
