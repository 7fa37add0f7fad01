//! Which places of a kernel meet the image, along one axis.

/// One axis of a convolution, seen from the side that is computed: its coordinates are called
/// `dst`, those of the other image `src`.
///
/// Forward, `src = dst·stride + place - padding`; for the gradient of the input the roles are
/// swapped, `dst = src·stride + place - padding`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Coordinates of the image that is computed.
    pub dst: usize,
    /// Coordinates of the image that is read.
    pub src: usize,
    /// Places of the kernel.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Zeros before the first coordinate of the input.
    pub padding: usize,
    /// The roles are swapped.
    pub swapped: bool,
}

/// The places of the kernel that meet the image at one coordinate, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// The first place.
    pub first: usize,
    /// Distance between places.
    pub step: usize,
    /// How many there are.
    pub count: usize,
    /// The coordinate of `src` at the first place.
    pub src: usize,
    /// Coordinates fall from place to place, by one, instead of rising.
    pub falling: bool,
}

impl Places {
    /// `(place, coordinate of src)` in rising order of places.
    pub fn iter(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).map(move |i| {
            let src = if self.falling {
                self.src - i
            } else {
                self.src + i
            };
            (self.first + i * self.step, src)
        })
    }

    /// One past the last coordinate of `src`.
    pub fn end(self) -> usize {
        match self.falling {
            true => self.src + self.count.min(1),
            false => self.src + self.count,
        }
    }

    /// Whether two coordinates have the same places.
    fn alike(&self, other: &Places) -> bool {
        (self.first, self.count) == (other.first, other.count)
    }
}

/// Coordinates `first`, `first + period`, .. that have the same places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first coordinate.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// The places at the first coordinate; at each further one `src` is [`Axis::advance`] larger.
    pub places: Places,
}

impl Axis {
    /// The smallest distance at which coordinates have the same places.
    pub fn period(&self) -> usize {
        if self.swapped { self.stride } else { 1 }
    }

    /// How far `src` moves when `dst` moves by a period.
    pub fn advance(&self) -> usize {
        if self.swapped { 1 } else { self.stride }
    }

    /// The places that meet the image at coordinate `dst`.
    pub fn places(&self, dst: usize) -> Places {
        if self.swapped {
            return self.places_swapped(dst);
        }
        let start = dst * self.stride;
        let first = self.padding.saturating_sub(start);
        let end = (self.src + self.padding)
            .saturating_sub(start)
            .min(self.kernel);
        Places {
            first,
            step: 1,
            count: end.saturating_sub(first),
            src: (start + first).saturating_sub(self.padding),
            falling: false,
        }
    }

    fn places_swapped(&self, dst: usize) -> Places {
        let at = dst + self.padding;
        // A place is met by `src = (at - place) / stride`: it must leave no remainder and no
        // coordinate outside `0..self.src`.
        let reach = self.src.saturating_sub(1) * self.stride;
        let first = at.checked_sub(reach).unwrap_or(at % self.stride);
        let last = at.min(self.kernel.saturating_sub(1));
        let count = match last.checked_sub(first) {
            Some(rest) if self.src > 0 && self.kernel > 0 => rest / self.stride + 1,
            _ => 0,
        };
        Places {
            first,
            step: self.stride,
            count,
            src: at.saturating_sub(first) / self.stride,
            falling: true,
        }
    }

    /// All coordinates, gathered into spans.
    pub fn spans(self) -> impl Iterator<Item = Span> {
        let period = self.period();
        (0..period).flat_map(move |phase| {
            let mut next = phase;
            std::iter::from_fn(move || {
                if next >= self.dst {
                    return None;
                }
                let (first, places) = (next, self.places(next));
                while next < self.dst && self.places(next).alike(&places) {
                    next += period;
                }
                Some(Span {
                    first,
                    count: (next - first) / period,
                    places,
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_agree_with_the_definition() {
        for (len, kernel, stride, padding) in [
            (8, 3, 1, 1),
            (9, 3, 2, 1),
            (7, 1, 2, 0),
            (11, 2, 3, 0),
            (5, 5, 1, 2),
            (3, 5, 2, 2),
            (1, 3, 1, 1),
            (6, 4, 5, 3),
            (2, 1, 1, 4),
        ] {
            let out = (len + 2 * padding - kernel) / stride + 1;
            for swapped in [false, true] {
                let (dst, src) = if swapped { (len, out) } else { (out, len) };
                let axis = Axis {
                    dst,
                    src,
                    kernel,
                    stride,
                    padding,
                    swapped,
                };
                let mut seen = vec![0; dst];
                for span in axis.spans() {
                    for i in 0..span.count {
                        let at = span.first + i * axis.period();
                        seen[at] += 1;
                        let got: Vec<_> = span.places.iter().collect();
                        let got: Vec<_> = got
                            .iter()
                            .map(|&(k, s)| (k, s + i * axis.advance()))
                            .collect();
                        let want: Vec<_> = (0..kernel)
                            .flat_map(|k| (0..src).map(move |s| (k, s)))
                            .filter(|&(k, s)| {
                                let (o, x) = if swapped { (s, at) } else { (at, s) };
                                o * stride + k == x + padding
                            })
                            .collect();
                        assert_eq!(got, want, "{axis:?} at {at}");
                    }
                }
                assert!(seen.iter().all(|&n| n == 1), "{axis:?}");
            }
        }
    }
}
