//! The iteration order of a Python set of small integers.

/// Slots looked at after the first one before the probe jumps.
const LINEAR_PROBES: usize = 9;

/// The order in which CPython iterates over a set that `values` were added to one by one
/// (repeated values are added once).
///
/// Avalanche iterates over sets of class labels where order matters (which class gets the spare
/// slots of a replay buffer, in which order the classes of an experience are laid out), so equal
/// results need this order. A small integer is its own hash, and iteration follows the hash table:
/// open addressing with nine linear probes, then a jump `i = 5i + 1 + (perturb >>= 5)`, and growth
/// to the power of two above four times the fill once the table is three fifths full
/// (`Objects/setobject.c` of CPython 3.7 to 3.13; compared with CPython 3.11).
///
/// ```
/// use unforget::rng::python_set_order;
/// // list({9, 3, 1}): 9 takes slot 1 of 8 (9 mod 8), 3 its own, and 1 finds slot 6.
/// assert_eq!(python_set_order(&[9, 3, 1]), [9, 3, 1]);
/// assert_eq!(python_set_order(&[1, 9, 3, 3]), [1, 3, 9]);
/// ```
pub fn python_set_order(values: &[u32]) -> Vec<u32> {
    let mut table = vec![None; 8];
    let mut fill = 0;
    for &value in values {
        if !insert(&mut table, value) {
            continue;
        }
        fill += 1;
        if fill * 5 >= (table.len() - 1) * 3 {
            let growth = if fill > 50_000 { 2 } else { 4 };
            let mut larger = vec![None; (fill * growth + 1).next_power_of_two()];
            for old in table.into_iter().flatten() {
                insert(&mut larger, old);
            }
            table = larger;
        }
    }
    table.into_iter().flatten().collect()
}

/// Puts `value` into the first free slot of its probe sequence; false if it is already there.
fn insert(table: &mut [Option<u32>], value: u32) -> bool {
    let mask = table.len() - 1;
    let mut perturb = value as usize;
    let mut slot = perturb & mask;
    loop {
        let last = if slot + LINEAR_PROBES <= mask {
            slot + LINEAR_PROBES
        } else {
            slot
        };
        for entry in &mut table[slot..=last] {
            match *entry {
                None => {
                    *entry = Some(value);
                    return true;
                }
                Some(present) if present == value => return false,
                Some(_) => {}
            }
        }
        perturb >>= 5;
        slot = (slot * 5 + 1 + perturb) & mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `list(set(v))` as CPython 3.11.7 printed it.
    #[test]
    fn order_is_cpythons() {
        let cases: [(&[u32], &[u32]); 5] = [
            (&[8, 1], &[8, 1]),
            (&[4, 18, 2, 8], &[8, 18, 2, 4]),
            (&[15, 63, 97, 57, 60, 83], &[97, 15, 83, 57, 60, 63]),
            (
                &[48, 26, 12, 62, 3, 49, 55, 77, 97, 98, 0, 89],
                &[0, 97, 98, 3, 12, 77, 48, 49, 55, 89, 26, 62],
            ),
            (
                &[
                    114, 68, 184, 58, 151, 26, 81, 7, 5, 6, 166, 138, 2, 97, 175, 55, 108, 185,
                    135, 56,
                ],
                &[
                    2, 5, 6, 7, 135, 138, 151, 26, 166, 175, 55, 184, 185, 58, 56, 68, 81, 97, 108,
                    114,
                ],
            ),
        ];
        for (values, want) in cases {
            assert_eq!(python_set_order(values), want, "set({values:?})");
        }
    }

    /// Ninety thousand numbers with collisions and repetitions reach every branch, the slower growth
    /// above 50,000 included. The expected value is the FNV-1a hash (one step a number) of CPython 3.11.7's order.
    #[test]
    fn order_of_a_large_set_is_cpythons() {
        let mut x = 1u64;
        let values: Vec<u32> = (0..90_000)
            .map(|_| {
                x = (x * 1_103_515_245 + 12_345) % (1 << 31);
                (x >> 9) as u32
            })
            .collect();
        let hash = python_set_order(&values)
            .iter()
            .fold(14_695_981_039_346_656_037u64, |h, &v| {
                (h ^ u64::from(v)).wrapping_mul(1_099_511_628_211)
            });
        assert_eq!(hash, 8_194_499_581_602_728_690);
    }

    proptest! {
        #[test]
        fn order_holds_each_value_once(values in prop::collection::vec(0u32..300, 0..200)) {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let mut got = python_set_order(&values);
            got.sort_unstable();
            prop_assert_eq!(got, sorted);
        }

        /// Below eight slots nothing collides, so the order is ascending.
        #[test]
        fn few_small_values_ascend(values in prop::collection::vec(0u32..8, 0..4)) {
            prop_assert!(python_set_order(&values).is_sorted());
        }
    }
}
