//! The streams of twenty seeds, as recorded from Avalanche: class orders, permutations, angles.

use serde_json::Value;
use unforget::data::RawSample;
use unforget::prelude::*;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/mnist_streams.json")).unwrap()
}

/// Two images whose every pixel holds its own place, 0 to 783, or `(7x + 13y) mod 251`.
fn places() -> Dataset {
    let formula = (0..784).map(|p| ((7 * (p % 28) + 13 * (p / 28)) % 251) as f32);
    let pixels = (0..784).map(|p| p as f32).chain(formula).collect();
    Dataset::from_f32("places", [1, 28, 28], pixels, vec![0, 1], 2).unwrap()
}

fn pixels(experience: &Experience, i: usize) -> Vec<u32> {
    match experience.dataset().raw(i) {
        RawSample::F32(values) => values.iter().map(|&x| x as u32).collect(),
        RawSample::U8(_) => panic!("the images are f32"),
    }
}

fn list(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

fn fnv1a64(bytes: impl Iterator<Item = u8>) -> String {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[test]
fn class_orders_are_avalanches() {
    let golden = golden();
    for (seed, want) in golden["class_orders"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let builder = SplitMnist::embedded().n_experiences(5).seed(seed as u64);
        let benchmark = builder.build().unwrap();
        let got: Vec<f64> = benchmark
            .classes_order()
            .iter()
            .map(|&c| f64::from(c))
            .collect();
        assert_eq!(got, list(want), "seed {seed}");
    }
}

#[test]
fn permutations_are_avalanches() {
    let golden = golden();
    for (seed, want) in golden["permutations"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let builder = PermutedMnist::from_datasets(places(), places()).n_experiences(3);
        let benchmark = builder.seed(seed as u64).build().unwrap();
        for (i, want) in want.as_array().unwrap().iter().enumerate() {
            let got = pixels(&benchmark.train_stream()[i], 0);
            let hash = fnv1a64(got.iter().flat_map(|p| p.to_le_bytes()));
            assert_eq!(
                hash,
                want["fnv1a64"].as_str().unwrap(),
                "seed {seed}, experience {i}"
            );
        }
    }
}

#[test]
fn rotations_are_avalanches() {
    let golden = golden();
    let rotated = || RotatedMnist::from_datasets(places(), places()).n_experiences(5);
    for (seed, want) in golden["angles"].as_array().unwrap().iter().enumerate() {
        let drawn = rotated().seed(seed as u64).build().unwrap();
        let listed = rotated().rotations_list(list(want)).build().unwrap();
        for (a, b) in drawn.train_stream().iter().zip(listed.train_stream()) {
            assert_eq!(pixels(a, 0), pixels(b, 0), "seed {seed}");
        }
    }
    let images = golden["rotated"].as_object().unwrap();
    let formula = images
        .iter()
        .find(|(name, _)| name.contains("formula"))
        .unwrap()
        .1;
    for want in formula.as_array().unwrap() {
        let angles = vec![want["angle"].as_f64().unwrap(); 5];
        let benchmark = rotated().rotations_list(angles).build().unwrap();
        let bytes = pixels(&benchmark.test_stream()[0], 1)
            .into_iter()
            .map(|p| p as u8);
        assert_eq!(fnv1a64(bytes), want["fnv1a64"].as_str().unwrap(), "{want}");
    }
}
