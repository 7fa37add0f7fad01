//! Metrics of continual learning.
