//! A whole small run whose every number is known from Avalanche: three experiences, two epochs each,
//! momentum, replay from the second experience on.

use crate::devices;
use crate::formula::{self, Record};
use unforget::prelude::*;
use unforget::replay::Buffer;

const LOSSES: [f64; 24] = [
    1.75660014, 1.74235821, 1.80881083, 1.41045678, 1.43002915, 1.19311213, 1.00612009, 0.79179585,
    3.32025075, 3.43642402, 3.28797269, 3.17182446, 2.88514566, 2.61059451, 2.58039904, 2.30714345,
    3.73933029, 3.93256187, 3.64610434, 3.66565943, 3.38597679, 3.39003229, 3.21889591, 2.93215990,
];

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    let error = (got - want).abs();
    assert!(
        error <= tolerance,
        "{what}: expected {want}, found {got}, {error:e} apart"
    );
}

#[test]
fn the_golden_run_comes_out() {
    for device in devices::in_f32() {
        golden_run(device);
    }
}

fn golden_run(device: Device) {
    let benchmark = formula::benchmark(false);
    assert_eq!(benchmark.classes_order(), [2, 5, 3, 0, 1, 4]);

    let (tape, model) = formula::model_on(device);
    let first = tape.parameter_value(tape.parameters()[0]);
    let row = [
        -0.16647391,
        0.01352305,
        -0.20276001,
        0.15395598,
        -0.34785002,
        0.29926392,
    ];
    for (got, want) in first.iter().zip(row) {
        close(f64::from(*got), want, 5e-9, "initial weight");
    }

    let losses = Record::default();
    let mut strategy = Der::builder(tape, model, Sgd::new(0.1).momentum(0.9))
        .mem_size(10)
        .batch_size_mem(4)
        .train_mb_size(5)
        .train_epochs(2)
        .alpha(0.2)
        .beta(0.5)
        .eval_mb_size(8)
        .plugin(losses.clone())
        .build()
        .unwrap();

    let expected = [
        (0.3333, 2.167635, [1.0, 0.0, 0.0]),
        (0.3333, 1.898536, [1.0, 0.0, 0.0]),
        (0.2500, 1.630282, [0.25, 0.5, 0.0]),
    ];
    for (experience, (accuracy, loss, by_experience)) in
        benchmark.train_stream().iter().zip(expected)
    {
        strategy.train(experience).unwrap();
        let eval = strategy.eval(benchmark.test_stream()).unwrap();
        close(eval.accuracy(), accuracy, 5e-5, "accuracy");
        close(eval.loss(), loss, 2e-6, "evaluation loss");
        let found: Vec<f64> = eval.experiences.iter().map(|e| e.accuracy()).collect();
        assert_eq!(found, by_experience);
    }

    let losses = losses.get();
    assert_eq!(losses.len(), 24);
    for (i, ((got, _), want)) in losses.iter().zip(LOSSES).enumerate() {
        close(
            f64::from(*got),
            want,
            2e-6,
            &format!("loss of iteration {i}"),
        );
    }

    let Some(Buffer::ClassBalanced(buffer)) = &strategy.state().storage_policy else {
        panic!("DER keeps a class-balanced buffer");
    };
    let found: Vec<(u32, Vec<u32>, Vec<f32>)> = buffer
        .groups()
        .map(|(class, items)| {
            let keys = items.iter().map(|item| item.key).collect();
            (
                class,
                items.iter().map(|item| item.source_index).collect(),
                keys,
            )
        })
        .collect();
    let expected: [(u32, &[u32], &[f64]); 6] = [
        (2, &[14, 26], &[0.999756, 0.975296]),
        (5, &[41], &[0.721078]),
        (0, &[36, 6], &[0.935534, 0.593769]),
        (3, &[39, 3], &[0.853292, 0.811773]),
        (1, &[1, 25], &[0.796948, 0.699736]),
        (4, &[34], &[0.768960]),
    ];
    assert_eq!(found.len(), expected.len());
    for ((class, indices, keys), (want_class, want_indices, want_keys)) in
        found.iter().zip(expected)
    {
        assert_eq!((*class, indices.as_slice()), (want_class, want_indices));
        for (key, want) in keys.iter().zip(want_keys) {
            close(f64::from(*key), *want, 5e-7, "key");
        }
    }
    let stored = buffer.groups().find(|(class, _)| *class == 5).unwrap().1[0]
        .logits
        .clone();
    let want = [
        -0.7496976, -0.7274545, 1.1857535, -0.3637557, -0.5318243, 1.7250061,
    ];
    for (got, want) in stored.iter().zip(want) {
        close(f64::from(*got), want, 2e-6, "stored logit of sample 41");
    }
    let tape = &strategy.state().tape;
    let output = tape.parameter_value(tape.parameters()[2]);
    let row = [
        -0.295515, 0.079460, 0.325520, -0.486544, 0.187591, 0.234089, -0.342002, -0.238026,
    ];
    for (got, want) in output.iter().zip(row) {
        close(f64::from(*got), want, 3e-6, "final output weight");
    }
}
