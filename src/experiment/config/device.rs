//! The option `--device`.

use serde::{Deserialize, Serialize};

use crate::tape::Device;

/// Where a run computes, as it is written in options and files: `cpu`, `cuda` (the first GPU),
/// `cuda:N` or `auto`.
///
/// ```
/// use unforget::experiment::DeviceName;
/// let device = DeviceName::try_from("cuda:1".to_string());
/// assert_eq!(device, Ok(DeviceName::Cuda(1)));
/// assert!(DeviceName::try_from("cuda:x".to_string()).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
    /// The first GPU if there is one and this build can use it, otherwise the processor.
    Auto,
}

impl DeviceName {
    /// The device itself; `auto` looks for a GPU.
    pub fn device(self) -> Device {
        match self {
            DeviceName::Cpu => Device::Cpu,
            DeviceName::Cuda(ordinal) => Device::Cuda(ordinal),
            DeviceName::Auto => Device::fastest(),
        }
    }

    /// What `auto` comes to on this machine; anything else as it is.
    pub(super) fn settled(self) -> Self {
        match (self, self.device()) {
            (DeviceName::Auto, Device::Cuda(ordinal)) => DeviceName::Cuda(ordinal),
            (DeviceName::Auto, _) => DeviceName::Cpu,
            (named, _) => named,
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match text.as_str() {
            "cpu" => Ok(DeviceName::Cpu),
            "cuda" => Ok(DeviceName::Cuda(0)),
            "auto" => Ok(DeviceName::Auto),
            other => (number(other).map(DeviceName::Cuda))
                .ok_or_else(|| format!("expected cpu, cuda, cuda:N or auto, found {other}")),
        }
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> String {
        match name {
            DeviceName::Cpu => "cpu".into(),
            DeviceName::Cuda(ordinal) => format!("cuda:{ordinal}"),
            DeviceName::Auto => "auto".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_reads_as_it_is_written() {
        for name in [
            DeviceName::Cpu,
            DeviceName::Cuda(0),
            DeviceName::Cuda(3),
            DeviceName::Auto,
        ] {
            assert_eq!(DeviceName::try_from(String::from(name)), Ok(name));
        }
        assert_eq!(
            DeviceName::try_from("cuda".to_string()),
            Ok(DeviceName::Cuda(0))
        );
        for wrong in [
            "",
            "gpu",
            "cuda:",
            "cuda:-1",
            "cuda:99999999999999999999",
            "CPU",
        ] {
            assert!(DeviceName::try_from(wrong.to_string()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn auto_settles_on_a_device_that_is_named() {
        assert_ne!(DeviceName::Auto.settled(), DeviceName::Auto);
        assert_eq!(DeviceName::Cuda(7).settled(), DeviceName::Cuda(7));
    }
}
