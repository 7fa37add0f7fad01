//! The part of TensorFlow's `event.proto` and `summary.proto` that is written here. Numbers and types
//! of the fields are the format; the names are TensorFlow's.

/// One entry of an events file.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    pub what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum What {
    /// `brain.Event:2`, in the first event of each file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(oneof = "Content", tags = "2, 4, 5")]
    pub content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Content {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "4")]
    Image(Image),
    #[prost(message, tag = "5")]
    Histo(Histogram),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    pub height: i32,
    #[prost(int32, tag = "2")]
    pub width: i32,
    /// Channels: 3 is RGB.
    #[prost(int32, tag = "3")]
    pub colorspace: i32,
    /// A whole PNG file.
    #[prost(bytes = "vec", tag = "4")]
    pub encoded_image_string: Vec<u8>,
}

/// `bucket[i]` values lie below `bucket_limit[i]` and not below the limit before it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Histogram {
    #[prost(double, tag = "1")]
    pub min: f64,
    #[prost(double, tag = "2")]
    pub max: f64,
    #[prost(double, tag = "3")]
    pub num: f64,
    #[prost(double, tag = "4")]
    pub sum: f64,
    #[prost(double, tag = "5")]
    pub sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    pub bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    pub bucket: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// Recorded from TensorBoard 2.21's own messages with the same content.
    #[test]
    fn messages_are_tensorboards() {
        let recorded = "09000000000000f83f10072a740a080a0161150000803e0a100a0162220b0801100218032203706e670a560a01632a5109000000000000f0bf1100000000000000401900000000000008402100000000000010402900000000000014403210000000000000000000000000000000403a10000000000000f03f0000000000000040";
        let value = |tag: &str, content| Value {
            tag: tag.into(),
            content: Some(content),
        };
        let image = Image {
            height: 1,
            width: 2,
            colorspace: 3,
            encoded_image_string: b"png".to_vec(),
        };
        let histogram = Histogram {
            min: -1.0,
            max: 2.0,
            num: 3.0,
            sum: 4.0,
            sum_squares: 5.0,
            bucket_limit: vec![0.0, 2.0],
            bucket: vec![1.0, 2.0],
        };
        let summary = Summary {
            value: vec![
                value("a", Content::SimpleValue(0.25)),
                value("b", Content::Image(image)),
                value("c", Content::Histo(histogram)),
            ],
        };
        let event = Event {
            wall_time: 1.5,
            step: 7,
            what: Some(What::Summary(summary)),
        };
        let bytes: String = event
            .encode_to_vec()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(bytes, recorded);
    }
}
