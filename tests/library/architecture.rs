//! The layers of the crate, read from the source: a module uses only what lies below it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module and the modules that it may use besides itself, from the lowest layer on.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("shape", &["error"]),
    ("rng", &["error"]),
    ("snapshot", &["error"]),
    ("figure", &["error"]),
    ("pixels", &[]),
    ("backend", &["error", "shape", "rng", "pixels"]),
    ("graph", &["error", "shape", "rng", "pixels", "backend"]),
    ("ops", &["error", "shape", "rng", "backend", "graph"]),
    (
        "tape",
        &[
            "error", "shape", "rng", "snapshot", "pixels", "backend", "graph", "ops",
        ],
    ),
    ("nn", &["error", "shape", "rng", "tape", "snapshot"]),
    ("optim", &["error", "shape", "rng", "tape"]),
    ("data", &["error", "shape", "rng", "pixels"]),
    ("benchmarks", &["error", "shape", "rng", "data"]),
    (
        "replay",
        &["error", "shape", "rng", "data", "benchmarks", "snapshot"],
    ),
    ("template", ABOVE),
    ("evaluation", ABOVE),
    ("training", ABOVE),
    ("logging", ABOVE),
    ("checkpoint", ABOVE),
    ("report", ABOVE),
    ("experiment", ABOVE),
];

/// Whatever stands above in the table, but for the insides of the engine.
const ABOVE: &[&str] = &["*"];

/// What lies behind the tape.
const INSIDES: [&str; 3] = ["backend", "graph", "ops"];

/// Whether the table lets the module at `from` use the module `to`.
fn may_use(from: usize, to: &str) -> bool {
    let (_, allowed) = LAYERS[from];
    if allowed == ABOVE {
        LAYERS[..from].iter().any(|(name, _)| *name == to) && !INSIDES.contains(&to)
    } else {
        allowed.contains(&to)
    }
}

/// Uses that break the table, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    // SGD runs in the backend on all parameters at once; `optim` fills in its constants.
    ("optim.rs", "backend::SgdStep"),
    // A product is measured on the kernels themselves, and against what they could do at most.
    (
        "experiment/bench/product.rs",
        "backend::cpu::probe::Products",
    ),
    (
        "experiment/bench/product.rs",
        "backend::cpu::probe::Aligned",
    ),
];

/// The program, which may use everything.
const PROGRAM: [&str; 3] = ["main", "cli", "lib"];

/// Files that may allow `unsafe`, with the folder of the instruction sets.
const UNSAFE: [&str; 9] = [
    "backend/cpu/team.rs",
    "backend/cpu/tiles.rs",
    "backend/cpu/dispatch.rs",
    "backend/cpu/table.rs",
    "backend/cpu/table/transforms.rs",
    "backend/cpu/isa/",
    // Calls of the driver that compute, that look for it, and loading the kernels' compiler.
    "backend/cuda/driver.rs",
    "backend/cuda/probe.rs",
    "backend/cuda/nvrtc.rs",
];

/// The longest file.
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every source file: its path below `src` with `/`, and its text.
fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "only {} source files found", paths.len());
    (paths.iter())
        .map(|path| {
            let name = path.strip_prefix(&src).expect("below src");
            let name = name.to_str().expect("a name").replace('\\', "/");
            (name, std::fs::read_to_string(path).expect("a text"))
        })
        .collect()
}

/// The text without its comments; links in documentation do not count as uses.
fn code(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// The top-level parts of `{a, b::{c, d}}`, without braces.
fn parts(list: &str) -> Vec<String> {
    let (mut depth, mut out) = (0, vec![String::new()]);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        if !(c == '{' && depth == 1) {
            out.last_mut().expect("a part").push(c);
        }
    }
    out.iter()
        .map(|s| s.trim().to_string())
        .filter(|s| !s.is_empty())
        .collect()
}

/// Every path below `crate::` that the code names.
fn uses(code: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + found.len()..];
        if rest.starts_with('{') {
            out.extend(parts(rest));
        } else {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            out.push(rest[..end.unwrap_or(rest.len())].to_string());
        }
    }
    out
}

/// The module that owns a path below `crate::`; items re-exported at the root belong where they
/// are written.
fn owner(path: &str) -> &str {
    let first = path.split([':', ' ']).next().expect("a name");
    match first {
        "Error" | "Result" => "error",
        "Tape" => "tape",
        name => name,
    }
}

fn module(file: &str) -> &str {
    file.split('/')
        .next()
        .expect("a name")
        .trim_end_matches(".rs")
}

#[test]
fn a_module_uses_only_the_layers_below_it() {
    let mut wrong = Vec::new();
    let mut excused = BTreeSet::new();
    for (file, text) in sources() {
        let from = module(&file);
        if PROGRAM.contains(&from) {
            continue;
        }
        let Some(layer) = LAYERS.iter().position(|(name, _)| *name == from) else {
            wrong.push(format!("src/{file}: the module {from} is in no layer"));
            continue;
        };
        for path in uses(&code(&text)) {
            let to = owner(&path);
            // The root re-exports ndarray.
            if to == from || may_use(layer, to) || to == "ndarray" {
                continue;
            }
            let exception = (EXCEPTIONS.iter()).find(|(f, p)| *f == file && *p == path);
            match exception {
                Some(found) => {
                    excused.insert(*found);
                }
                None => wrong.push(format!("src/{file}: {from} may not use crate::{path}")),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let stale: Vec<_> = (EXCEPTIONS.iter())
        .filter(|e| !excused.contains(*e))
        .collect();
    assert!(
        stale.is_empty(),
        "exceptions that nothing needs any more: {stale:?}"
    );
}

#[test]
fn lib_declares_every_layer_and_no_other_module() {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs");
    let declared: BTreeSet<_> = (code(&text).lines())
        .filter_map(|line| {
            Some(
                line.trim()
                    .strip_suffix(';')?
                    .split("mod ")
                    .nth(1)?
                    .to_string(),
            )
        })
        .collect();
    let table: BTreeSet<_> = LAYERS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(declared, table);
}

#[test]
fn the_architecture_document_names_every_module() {
    let Ok(text) = std::fs::read_to_string(root().join("ARCHITECTURE.md")) else {
        return; // A package without its documents.
    };
    let words: BTreeSet<_> = text
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .collect();
    for (name, _) in LAYERS {
        assert!(
            words.contains(name),
            "ARCHITECTURE.md does not name the module {name}"
        );
    }
}

#[test]
fn no_file_is_too_long() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= MAX_LINES,
            "src/{file} has {lines} lines, at most {MAX_LINES} are allowed"
        );
    }
}

#[test]
fn unsafe_code_stays_in_its_files() {
    for (file, text) in sources() {
        let code = code(&text);
        let allows = ["allow(unsafe_code", "expect(unsafe_code"]
            .iter()
            .any(|a| code.contains(a));
        let may = UNSAFE.iter().any(|place| file.starts_with(place));
        assert!(!allows || may, "src/{file} may not allow unsafe code");
    }
}
