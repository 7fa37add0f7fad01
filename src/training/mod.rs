//! The strategy loop, DER and its siblings.
