//! Factors of a product that may still be bytes.

use super::View;

/// Numbers that are stored as bytes: see [`Backend::gather_bytes`](super::Backend::gather_bytes).
#[derive(Debug)]
pub struct LookUp<'a, Buf> {
    /// The bytes.
    pub bytes: View<'a, Buf>,
    /// The number that each byte stands for.
    pub table: &'a [f32; 256],
}

impl<Buf> Clone for LookUp<'_, Buf> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Buf> Copy for LookUp<'_, Buf> {}

/// The left factor of a product.
#[derive(Debug)]
pub enum Factor<'a, Buf> {
    /// Numbers.
    Numbers(View<'a, Buf>),
    /// Bytes that are looked up.
    Bytes(LookUp<'a, Buf>),
}
