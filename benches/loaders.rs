//! What loader workers gain on samples that are costly to make: DER++ on JPEG files of 256 x 256 pixels, each
//! decoded when its mini-batch wants it, scaled, cropped at random and turned.
//!
//! `cargo bench --bench loaders`: samples a second with 0, 1 and 2 workers on one computing
//! thread, the numbers in turn, the best of three each. The machine needs a free core for each worker.

use std::path::Path;
use std::time::Instant;

use unforget::data::on_disk::image_folder_on_disk;
use unforget::data::{Transform, TransformGroups};
use unforget::nn::ResNet18;
use unforget::prelude::*;
use unforget::training::LoaderOptions;

const PICTURES: u32 = 256;
const SIDE: usize = 32;

/// Pictures with edges and colour ramps, in two classes.
fn draw(folder: &Path) -> image::ImageResult<()> {
    for i in 0..PICTURES {
        let class = folder.join(format!("class{}", i % 2));
        std::fs::create_dir_all(&class).expect("a folder");
        let picture = image::RgbImage::from_fn(256, 256, |x, y| {
            let wave = (x * (i % 7 + 1) + y * (i % 5 + 2)) % 256;
            image::Rgb([wave as u8, (x ^ y) as u8, (wave / 2 + i % 128) as u8])
        });
        picture.save(class.join(format!("{i:03}.jpg")))?;
    }
    Ok(())
}

/// Samples a second of one epoch, which takes its rows from `workers` workers.
fn measure(benchmark: &Benchmark, workers: usize) -> f64 {
    let mut tape = Tape::new(Device::Cpu).expect("the processor");
    tape.manual_seed(0);
    let model = ResNet18::new(&mut tape, 2, 8);
    let mut strategy = Der::builder(tape, model, Sgd::new(0.03))
        .train_mb_size(16)
        .mem_size(32)
        .loader(LoaderOptions {
            num_workers: workers,
            ..LoaderOptions::default()
        })
        .build()
        .expect("a strategy");
    let start = Instant::now();
    strategy.train(benchmark.train_stream()).expect("training");
    f64::from(PICTURES) / start.elapsed().as_secs_f64()
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    draw(folder.path()).expect("pictures");
    let data = image_folder_on_disk(folder.path(), "jpeg", [64, 64]).expect("a data set");
    let eval = Transform::cifar10().resize(SIDE, SIDE);
    let transforms = TransformGroups {
        train: Transform::cifar10()
            .random_rotation(-20.0, 20.0)
            .resize(SIDE, SIDE)
            .random_crop(SIDE, SIDE, 4),
        eval,
    };
    let benchmark = NcBenchmark::new(data.clone(), data, transforms);
    let benchmark = benchmark.n_experiences(1).build().expect("a benchmark");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("a thread").install(|| {
        let mut best = [0.0f64; 3];
        for _ in 0..3 {
            for (workers, best) in best.iter_mut().enumerate() {
                *best = best.max(measure(&benchmark, workers));
            }
        }
        for (workers, samples) in best.iter().enumerate() {
            let gain = samples / best[0];
            println!("{workers} workers {samples:8.1} samples/s {gain:6.2} times");
        }
    });
}
