//! A CUDA driver for tests: the machine's own, or else one that runs the kernels on the CPU, compiled
//! here with g++ (`driver.cpp`). `UNFORGET_CUDA=emulated` takes the second even where there is the first.
#![allow(unsafe_code, reason = "loading a library runs its initialisers")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Whether this process has a CUDA driver. Without one, and without g++, says so and is false; but
/// panics if `UNFORGET_REQUIRE` names `cuda-emu`, so that a skipped test cannot pass for a green one.
pub fn ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY
        .get_or_init(|| real() || folder().is_some_and(|folder| load(&folder.join("libcuda.so.1"))))
}

/// Whether tests run on a real driver.
fn real() -> bool {
    static REAL: OnceLock<bool> = OnceLock::new();
    *REAL.get_or_init(|| {
        let emulated = std::env::var_os("UNFORGET_CUDA").is_some_and(|v| v == "emulated");
        // SAFETY: see `load`.
        !emulated && unsafe { libloading::Library::new("libcuda.so.1") }.is_ok()
    })
}

/// How often this thread has called an entry point of the emulated driver, of those that it counts; `None` of
/// a real one.
#[allow(dead_code, reason = "not every test that needs a driver counts")]
pub fn calls(entry_point: &str) -> Option<u64> {
    type Calls = unsafe extern "C" fn(*const std::ffi::c_char) -> u64;
    if real() {
        return None;
    }
    let name = std::ffi::CString::new(entry_point).expect("a name");
    // SAFETY: it is loaded already, so nothing is initialised; a driver that has this function is the
    // emulated one, and there it has this type.
    unsafe {
        let library = libloading::Library::new(folder()?.join("libcuda.so.1")).ok()?;
        let calls = library.get::<Calls>(b"cuda_emu_calls\0").ok()?;
        Some(calls(name.as_ptr()))
    }
}

/// The folder with the emulated `libcuda.so.1`, for the loader path of another process.
pub fn folder() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let compiles = Command::new("g++").arg("--version").output().is_ok();
            if compiles {
                return Some(build());
            }
            let required = std::env::var("UNFORGET_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|word| word == "cuda-emu"),
                "UNFORGET_REQUIRE asks for the emulated CUDA driver, but there is no g++"
            );
            eprintln!("skipped: there is neither a CUDA driver nor g++ to compile an emulated one");
            None
        })
        .clone()
}

fn load(library: &Path) -> bool {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the initialisers register kernels in a list.
    let library = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
    // Never unloaded: whoever asks for libcuda.so from now on gets this one.
    std::mem::forget(library.expect("the library that was just compiled"));
    true
}

/// What goes into the library: every kernel and the emulator.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["kernels", "kernels/ptx", "tests/cuda_emu"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e != "rs" && e != "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// FNV-1a of the sources: a changed kernel gives another library.
fn stamp(sources: &[PathBuf]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for path in sources {
        for byte in fs::read(path).expect("a source") {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

/// Compiles the library unless that was done before.
fn build() -> PathBuf {
    let sources = sources();
    let all = profile_folder().join("cuda-emu");
    let done = all.join(stamp(&sources));
    if done.join("libcuda.so.1").exists() {
        return done;
    }
    let work = all.join(format!("work-{}", std::process::id()));
    fs::create_dir_all(&work).expect("a folder in target/");
    let mut inputs: Vec<PathBuf> = (sources.iter())
        .filter(|path| path.extension().is_some_and(|e| e == "cpp"))
        .cloned()
        .collect();
    let kernels = sources
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "cu"));
    for kernel in kernels.filter(|path| path.parent().is_some_and(|p| p.ends_with("kernels"))) {
        let path = work
            .join(kernel.file_stem().expect("a name"))
            .with_extension("cpp");
        fs::write(&path, registered(kernel)).expect("a file in target/");
        inputs.push(path);
    }
    compile(
        &inputs,
        &["-shared", "-Wl,-soname,libcuda.so"],
        &work.join("libcuda.so.1"),
    );
    // Both names that programs ask for.
    std::os::unix::fs::symlink("libcuda.so.1", work.join("libcuda.so")).expect("a link in target/");
    // Another process may have been faster; its library is the same.
    if fs::rename(&work, &done).is_err() {
        fs::remove_dir_all(&work).expect("our own folder");
    }
    done
}

/// A kernel's file with its kernels entered in the emulator's list, by the names in its PTX.
fn registered(kernel: &Path) -> String {
    let name = kernel.file_stem().expect("a name").to_string_lossy();
    let ptx = kernel.with_file_name("ptx").join(format!("{name}.ptx"));
    let ptx = fs::read_to_string(&ptx).expect("the PTX of every kernel");
    let entries = (ptx.lines())
        .filter_map(|line| line.strip_prefix(".visible .entry ")?.strip_suffix('('))
        .map(|entry| format!("EMU_REGISTER({entry})\n"));
    format!(
        "#include \"{}\"\n{}",
        kernel.display(),
        entries.collect::<String>()
    )
}

/// Runs g++ over C++ files that include emulated kernels.
pub fn compile(inputs: &[PathBuf], options: &[&str], output: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Contraction would round like neither the GPU nor the loops that kernels are compared with.
    let result = Command::new("g++")
        .args([
            "-std=c++17",
            "-O2",
            "-g1",
            "-fPIC",
            "-w",
            "-ffp-contract=off",
            "-DCUDA_EMU",
        ])
        .args(options)
        .arg("-I")
        .arg(root.join("tests/cuda_emu"))
        .arg("-I")
        .arg(root.join("kernels"))
        .arg("-o")
        .arg(output)
        .args(inputs)
        .output()
        .expect("g++");
    assert!(
        result.status.success(),
        "g++ does not compile the kernels:\n{}",
        String::from_utf8_lossy(&result.stderr)
    );
}

/// `target/PROFILE`, from the place of the test's own program.
fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().expect("the test's own path");
    let deps = program.ancestors().find(|path| path.ends_with("deps"));
    deps.and_then(Path::parent)
        .expect("target/PROFILE/deps")
        .to_path_buf()
}
