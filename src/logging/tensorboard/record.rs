//! The frame around each event: TensorFlow's record format.
//!
//! A record is the length of its data (u64, little-endian), the masked CRC-32C of these eight
//! bytes, the data, and the masked CRC-32C of the data.

/// Rotated and shifted, so that the checksum of data that holds checksums is as good as any other.
pub(super) fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// Appends the record that holds `data`.
pub(super) fn frame(data: &[u8], out: &mut Vec<u8>) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked_crc(data).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from TensorBoard 2.21's `RecordWriter`: the event `brain.Event:2` at 1.5 seconds.
    #[test]
    fn a_record_is_framed_as_tensorflow_frames_it() {
        let mut event = vec![9];
        event.extend_from_slice(&1.5f64.to_le_bytes());
        event.extend_from_slice(&[26, 13]);
        event.extend_from_slice(b"brain.Event:2");
        let mut out = Vec::new();
        frame(&event, &mut out);
        assert_eq!(out[..12], [24, 0, 0, 0, 0, 0, 0, 0, 163, 127, 75, 34]);
        assert_eq!(out[12..36], event[..]);
        assert_eq!(out[36..], [42, 40, 100, 108]);
    }
}
