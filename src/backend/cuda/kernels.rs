//! The kernels: which there are, and their PTX, which is compiled into the program.

use super::nvrtc;
use super::probe::refused;
use crate::error::Result;
use cudarc::driver::{CudaContext, CudaFunction};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// One file of `kernels/`.
pub(super) struct Source {
    /// Its name without the ending.
    pub(super) name: &'static str,
    /// What it was compiled to.
    pub(super) ptx: &'static str,
}

macro_rules! kernels {
    ($($file:literal: $($kernel:ident = $name:literal),+;)+) => {
        /// A kernel under its name in `kernels/`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(super) enum Kernel { $($($kernel),+),+ }

        impl Kernel {
            /// Its name in the source.
            pub(super) fn name(self) -> &'static str {
                match self { $($(Kernel::$kernel => $name),+),+ }
            }
        }

        /// Every file, with its kernels in the order of [`Kernel`].
        const SOURCES: &[(Source, &[&str])] = &[$((
            Source {
                name: $file,
                ptx: include_str!(concat!("../../../kernels/ptx/", $file, ".ptx")),
            },
            &[$($name),+],
        )),+];
    };
}

kernels! {
    "conv": ConvForward = "conv_forward", ConvBackwardData = "conv_backward_data",
        ConvBackwardWeight = "conv_backward_weight", ConvForwardTf32 = "conv_forward_tf32",
        ConvBackwardDataTf32 = "conv_backward_data_tf32",
        ConvBackwardWeightTf32 = "conv_backward_weight_tf32",
        ConvForwardBf16 = "conv_forward_bf16", ConvBackwardDataBf16 = "conv_backward_data_bf16",
        ConvBackwardWeightBf16 = "conv_backward_weight_bf16";
    "dropout": Dropout = "dropout";
    "elementwise": Fill = "fill", ScaleAdd = "scale_add", AddBias = "add_bias",
        ReluForward = "relu_forward", ReluBackward = "relu_backward",
        TanhForward = "tanh_forward", TanhBackward = "tanh_backward",
        MseBackward = "mse_backward", MaskColumns = "mask_columns", GatherRows = "gather_rows";
    "gemm": GemmNn = "gemm_nn", GemmTn = "gemm_tn", GemmNt = "gemm_nt", GemmTt = "gemm_tt",
        GemmNnTf32 = "gemm_nn_tf32", GemmTnTf32 = "gemm_tn_tf32", GemmNtTf32 = "gemm_nt_tf32",
        GemmTtTf32 = "gemm_tt_tf32", GemmNnBf16 = "gemm_nn_bf16", GemmTnBf16 = "gemm_tn_bf16",
        GemmNtBf16 = "gemm_nt_bf16", GemmTtBf16 = "gemm_tt_bf16";
    "layout": Transpose = "transpose";
    "loss": RowLossForward = "row_loss_forward", RowLossBackward = "row_loss_backward";
    "metrics": NoteOutcome = "note_outcome";
    "norm": NormMoments = "norm_moments", NormStatistics = "norm_statistics",
        NormRunning = "norm_running", NormApply = "norm_apply",
        NormBackwardSums = "norm_backward_sums", NormBackwardMerge = "norm_backward_merge",
        NormBackwardApply = "norm_backward_apply";
    "optim": Sgd = "sgd";
    "pixels": GatherPixels = "gather_pixels";
    "pool": MaxPoolForward = "max_pool_forward", MaxPoolBackward = "max_pool_backward",
        AvgPoolForward = "avg_pool_forward", AvgPoolBackward = "avg_pool_backward";
    "reduce": MseForward = "mse_forward", SumRows = "sum_rows", SumSplits = "sum_splits";
}

/// All kernels, loaded into a context.
pub(super) struct Kernels(Vec<CudaFunction>);

impl Kernels {
    /// Hands the PTX to the driver, which compiles it for its GPU (and remembers that).
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the driver refuses it, or, in developer mode, if a
    /// kernel does not compile.
    pub(super) fn load(context: &Arc<CudaContext>) -> Result<Self> {
        let mut functions = Vec::new();
        for (source, names) in SOURCES {
            let ptx = match nvrtc::edited_kernels() {
                Some(folder) => nvrtc::compile(&folder, source.name)?,
                None => Ptx::from_src(source.ptx),
            };
            let module = context
                .load_module(ptx)
                .map_err(|e| refused(&format!("load the kernels of {}.cu", source.name), e))?;
            for name in *names {
                let function = module.load_function(name);
                functions.push(function.map_err(|e| refused(&format!("find {name}"), e))?);
            }
        }
        Ok(Kernels(functions))
    }

    pub(super) fn get(&self, kernel: Kernel) -> &CudaFunction {
        &self.0[kernel as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
    }

    /// The files of `kernels/` with this ending, in order.
    fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = (fs::read_dir(folder).expect("a folder"))
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == ending))
            .collect();
        files.sort();
        files
    }

    /// What `scripts/make-ptx` writes into the first line: FNV-1a of the headers and the source.
    fn stamp(source: &Path) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut paths = files(&folder(), "cuh");
        paths.push(source.to_path_buf());
        for path in paths {
            for byte in fs::read(path).expect("a source") {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        format!("{hash:016x}")
    }

    #[test]
    fn the_ptx_was_made_from_these_sources() {
        for (source, _) in SOURCES {
            let path = folder().join(source.name).with_extension("cu");
            let first = source.ptx.lines().next().expect("a line");
            assert!(
                first.ends_with(&stamp(&path)),
                "kernels/ptx/{0}.ptx is older than kernels/{0}.cu or a header: run scripts/make-ptx",
                source.name
            );
            assert!(
                source.ptx.contains(".version 8.0\n") && source.ptx.contains(".target sm_80\n")
            );
        }
    }

    #[test]
    fn the_table_names_every_kernel_of_every_file() {
        let table: Vec<_> = SOURCES.iter().map(|(s, _)| s.name.to_string()).collect();
        let stems = |ending: &str, folder: &Path| -> Vec<String> {
            let stem = |p: &PathBuf| {
                p.file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            };
            files(folder, ending).iter().map(stem).collect()
        };
        assert_eq!(table, stems("cu", &folder()));
        assert_eq!(table, stems("ptx", &folder().join("ptx")));
        for (source, names) in SOURCES {
            let entries: BTreeSet<_> = (source.ptx.lines())
                .filter_map(|line| line.strip_prefix(".visible .entry ")?.strip_suffix('('))
                .collect();
            assert_eq!(
                entries,
                names.iter().copied().collect(),
                "{}.cu",
                source.name
            );
        }
    }

    #[test]
    fn kernels_use_no_header_and_no_assembly_outside_of_their_wrappers() {
        for path in files(&folder(), "cu") {
            let text = fs::read_to_string(&path).expect("a source");
            for line in text.lines() {
                let allowed = !line.contains("asm") && !line.starts_with("#include <");
                assert!(allowed, "{}: {line}", path.display());
            }
        }
    }
}
