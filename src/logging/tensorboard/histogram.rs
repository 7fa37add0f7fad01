//! Numbers to a histogram with TensorFlow's buckets.

use std::sync::LazyLock;

use super::proto::Histogram;

/// Borders that grow by a tenth from 1e-12 to 1e20 on either side of 0, and the largest numbers.
static LIMITS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let step = |limit: &f64| Some(limit * 1.1).filter(|limit| *limit < 1e20);
    let mut positive: Vec<f64> = std::iter::successors(Some(1e-12), step).collect();
    positive.push(f64::MAX);
    let negative = positive.iter().rev().map(|limit| -limit);
    negative
        .chain([0.0])
        .chain(positive.iter().copied())
        .collect()
});

/// The histogram of the finite values; `None` of none. Empty buckets at both ends are left out, but
/// for one in front, which shows TensorBoard where the first full one begins.
pub(super) fn histogram(values: impl Iterator<Item = f64>) -> Option<Histogram> {
    let limits = &*LIMITS;
    let mut counts = vec![0.0; limits.len()];
    let mut out = Histogram {
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        ..Histogram::default()
    };
    for value in values.filter(|v| v.is_finite()) {
        let bucket = limits
            .partition_point(|&limit| limit <= value)
            .min(limits.len() - 1);
        counts[bucket] += 1.0;
        out.min = out.min.min(value);
        out.max = out.max.max(value);
        out.num += 1.0;
        out.sum += value;
        out.sum_squares += value * value;
    }
    let first = counts.iter().position(|&n| n > 0.0)?;
    let last = counts.iter().rposition(|&n| n > 0.0)?;
    let range = first.saturating_sub(1)..=last;
    out.bucket_limit = limits[range.clone()].to_vec();
    out.bucket = counts[range].to_vec();
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_the_limits_of_their_bucket() {
        let found = histogram([0.5, 0.5, -2.0, 0.0, f64::NAN].into_iter()).unwrap();
        assert_eq!((found.min, found.max, found.num), (-2.0, 0.5, 4.0));
        assert_eq!((found.sum, found.sum_squares), (-1.0, 4.5));
        assert_eq!(found.bucket.iter().sum::<f64>(), 4.0);
        assert_eq!(found.bucket[0], 0.0);
        assert_eq!(found.bucket.last(), Some(&2.0));
        for (i, &count) in found.bucket.iter().enumerate().skip(1) {
            let (low, high) = (found.bucket_limit[i - 1], found.bucket_limit[i]);
            let inside = |v: &&f64| (low..high).contains(*v);
            assert_eq!(
                [0.5, 0.5, -2.0, 0.0].iter().filter(inside).count() as f64,
                count
            );
        }
    }

    #[test]
    fn extremes_have_a_bucket_and_nothing_has_no_histogram() {
        let found = histogram([f64::MAX, f64::MIN].into_iter()).unwrap();
        assert_eq!(found.bucket.iter().sum::<f64>(), 2.0);
        assert_eq!(histogram([f64::NAN, f64::INFINITY].into_iter()), None);
        assert_eq!(histogram(std::iter::empty()), None);
    }
}
