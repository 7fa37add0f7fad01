//! What became of a mini-batch of evaluation.

use super::{Backend, Dst, Elem, Src, View, ViewMut};

/// The column of the largest value among `columns`, the first if several are equal; `None` of none. A NaN
/// is larger than nothing, and nothing is larger than a NaN that comes first.
pub fn argmax<E: Copy + PartialOrd>(row: &[E], columns: impl Iterator<Item = u32>) -> Option<u32> {
    let mut best: Option<(u32, E)> = None;
    for column in columns {
        let Some(&value) = row.get(column as usize) else {
            continue;
        };
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((column, value));
        }
    }
    best.map(|(column, _)| column)
}

/// [`Backend::note_outcome`] on the host.
pub(super) fn note_on_host<B: Backend>(
    backend: &B,
    ledger: Dst<'_, B>,
    loss: Src<'_, B>,
    logits: Src<'_, B>,
    keep: Src<'_, B>,
) {
    let read = |view: Src<'_, B>| {
        let mut numbers = vec![B::Elem::default(); view.len];
        backend.download(view, &mut numbers);
        numbers
    };
    let first = |offset, len| View {
        buf: &*ledger.buf,
        offset,
        len,
    };
    let taken = read(first(ledger.offset, 1))[0].to_f64() as usize;
    let (logits, keep) = (read(logits), read(keep));
    let kept = || (0..).zip(&keep).filter(|(_, k)| **k != B::Elem::default());
    let mut numbers = read(View { len: 1, ..loss });
    let rows = logits.chunks_exact(keep.len().max(1));
    numbers.extend(rows.flat_map(|row| {
        let guesses = [
            argmax(row, 0..row.len() as u32),
            argmax(row, kept().map(|(column, _)| column)),
        ];
        guesses.map(|column| B::Elem::from_f64(column.map_or(-1.0, f64::from)))
    }));
    let ViewMut { buf, offset, .. } = ledger;
    let used = B::Elem::from_f64((taken + numbers.len()) as f64);
    for (at, numbers) in [(0, &[used][..]), (1 + taken, &numbers)] {
        let dst = ViewMut {
            buf: &mut *buf,
            offset: offset + at,
            len: numbers.len(),
        };
        backend.upload(dst, numbers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_values_the_first_column_is_the_largest() {
        let row = [1.0, 3.0, 3.0, 0.0];
        assert_eq!(argmax(&row, 0..4), Some(1));
        assert_eq!(argmax(&row, [3, 2].into_iter()), Some(2));
        assert_eq!(argmax(&row, std::iter::empty()), None);
    }
}
