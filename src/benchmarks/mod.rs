//! Streams of experiences.
