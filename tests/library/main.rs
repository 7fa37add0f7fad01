//! The library as its users have it. One program, because linking it costs as much as most of these files
//! take to compile and run; what counts allocations has a program of its own (`allocations.rs` and others).

// What the tests share.
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "../cuda_emu/mod.rs"]
mod cuda_emu;
#[path = "../common/devices.rs"]
mod devices;
#[path = "../common/formula.rs"]
mod formula;
#[path = "../common/golden_tensors.rs"]
mod golden_tensors;
#[path = "../common/lab.rs"]
mod lab;
#[path = "../common/recorded.rs"]
mod recorded;
#[path = "../common/step.rs"]
mod step;
#[path = "../common/ten_classes.rs"]
mod ten_classes;

// Beside what PyTorch and Avalanche computed, did or offer.
mod avalanche_page;
mod avalanche_parity;
mod callbacks;
mod generators;
mod golden;
mod golden_heads;
mod golden_loggers;
mod golden_metrics;
mod golden_plugins;
mod golden_run;
mod streams;

// Beside a formula, or themselves on another day.
mod architecture;
mod augmentation;
mod batch_norm;
mod determinism;
mod early_stopping;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod gpu;
mod growing_heads;
mod metrics;
mod plugins;
mod replay_plugins;
mod strategy;
mod workers;
