//! How much the run has written.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use walkdir::WalkDir;

use super::name::{emit, metric_name};
use super::{At, Metric, Span, only};
use crate::Result;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// A measurement that takes longer is worth a warning.
const SLOW: Duration = Duration::from_millis(500);

/// Avalanche's `disk_usage_metrics`: the sizes of all files and folders below `paths` at the end of
/// the stretch, in KiB (`du -sb` divided by 1024; a file with several links counts each time).
/// Symbolic links are not followed, and what cannot be read counts as 0.
///
/// Names: `DiskUsage_MB`, `DiskUsage_Epoch`, `DiskUsage_Exp`, `DiskUsage_Stream`. Avalanche watches
/// the working directory by default; here the paths are always told.
///
/// # Panics
/// For other stretches.
#[track_caller]
pub fn disk_usage_metrics<P: Into<PathBuf> + Clone>(
    paths: &[P],
    at: &[At],
) -> Vec<Box<dyn Metric>> {
    let may = [At::Minibatch, At::Epoch, At::Experience, At::Stream];
    only("disk_usage_metrics", at, &may);
    let paths: Vec<PathBuf> = paths.iter().cloned().map(Into::into).collect();
    (at.iter())
        .map(|&at| {
            Box::new(DiskUsage {
                name: at.named("", "DiskUsage"),
                span: Span::new(at),
                paths: paths.clone(),
                warned: false,
            }) as Box<dyn Metric>
        })
        .collect()
}

struct DiskUsage {
    name: String,
    span: Span,
    paths: Vec<PathBuf>,
    warned: bool,
}

fn kibibytes(paths: &[PathBuf]) -> f64 {
    let entries = paths.iter().flat_map(WalkDir::new).filter_map(|e| e.ok());
    let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    sizes.sum::<u64>() as f64 / 1024.0
}

impl Metric for DiskUsage {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let now = self.span.on(event, s);
        if !now.emits {
            return;
        }
        let start = Instant::now();
        let size = MetricData::Scalar(kibibytes(&self.paths));
        let took = start.elapsed();
        if took > SLOW && !self.warned {
            self.warned = true;
            log::warn!(
                "measuring the disk usage of {:?} took {took:.1?}: watch fewer files, or less often",
                self.paths
            );
        }
        let name = metric_name(&self.name, s, self.span.at().of_experience());
        emit(out, s, name, size);
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("span", &self.span);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.span = from.get("span")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_folders_count_and_missing_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let empty = kibibytes(&[folder.path().into()]);
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        let with_folder = kibibytes(&[folder.path().into()]);
        std::fs::write(folder.path().join("inner/file"), vec![0; 5000]).unwrap();
        let grown = kibibytes(&[folder.path().into(), folder.path().join("missing")]);
        // The folders' own sizes may grow with their entries.
        assert!(
            grown - with_folder >= 5000.0 / 1024.0,
            "{grown}, {with_folder}"
        );
        assert!(with_folder >= empty);
        let file = kibibytes(&[folder.path().join("inner/file")]);
        assert_eq!(file, 5000.0 / 1024.0);
    }
}
