//! The program `unforget` as its users have it, started and watched from outside.

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "../cuda_emu/mod.rs"]
mod cuda_emu;
#[path = "../common/devices.rs"]
mod devices;

mod cli;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod cuda;
#[cfg(target_os = "linux")]
mod progress;
mod reproduce;
mod resume;
