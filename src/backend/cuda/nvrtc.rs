//! Developer mode: with `UNFORGET_KERNELS=DIR` the kernels are compiled from the sources in `DIR` when
//! the program starts, so that an edited kernel can be tried without making the PTX anew. Needs NVRTC
//! (`libnvrtc`, in the loader's path or in `NVRTC_DIR`), which nothing else here does.
#![allow(unsafe_code, reason = "looking for NVRTC is loading a library")]

use crate::error::{Error, Result};
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = "UNFORGET_KERNELS";

/// The folder with the sources to compile, if there is to be one.
pub(super) fn edited_kernels() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Compiles one file of the folder.
///
/// # Errors
/// [`Error::Device`] if NVRTC is not there or refuses the source, [`Error::Io`] if there is none.
pub(super) fn compile(folder: &Path, name: &str) -> Result<Ptx> {
    load()?;
    let path = folder.join(name).with_extension("cu");
    let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let options = CompileOptions {
        include_paths: vec![folder.display().to_string()],
        options: ["--std=c++17", "--device-as-default-execution-space"]
            .map(String::from)
            .to_vec(),
        arch: Some("compute_80"),
        name: Some(format!("{name}.cu")),
        ..CompileOptions::default()
    };
    compile_ptx_with_opts(text, options).map_err(|error| {
        let log = match &error {
            CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
            other => format!("{other:?}"),
        };
        Error::Device(format!(
            "{FOLDER}: {} does not compile: {log}",
            path.display()
        ))
    })
}

/// Makes sure that cudarc, which panics where the library is missing, will find it.
fn load() -> Result<()> {
    let open = |name: &OsStr| {
        // SAFETY: the initialisers of NVRTC's libraries ask for nothing.
        let library = unsafe { libloading::Library::new(name) };
        // Never unloaded: cudarc finds it by its name because it is there already.
        library.map(std::mem::forget).is_ok()
    };
    if let Some(folder) = std::env::var_os("NVRTC_DIR") {
        // NVRTC opens its builtins by their bare name, so they must be there before it.
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .map_err(|e| Error::io("read the folder", &folder, e))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().contains("libnvrtc"))
            .collect();
        files.sort_by_key(|path| !path.to_string_lossy().contains("builtins"));
        files.iter().for_each(|path| {
            open(path.as_os_str());
        });
    }
    let names = ["libnvrtc.so", "libnvrtc.so.12", "nvrtc64_120_0.dll"];
    match names.iter().any(|name| open(name.as_ref())) {
        true => Ok(()),
        false => Err(Error::Device(format!(
            "{FOLDER} is set but NVRTC 12 (libnvrtc.so.12) is not found: set NVRTC_DIR to its folder, \
             or unset {FOLDER} to use the compiled kernels"
        ))),
    }
}
