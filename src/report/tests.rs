use super::{LossPoint, ReportData, render, scale, write};
use crate::Error;

/// Five experiences of two classes, with losses that jump at each border.
fn example() -> ReportData {
    let names = ["5, 6", "1, 2", "0, 8", "3, 9", "4, 7"];
    let mut data = ReportData {
        title: "DER++ on Split-MNIST".into(),
        subtitle: "5 experiences, MLP 784-100-100-10, seed 1, finished in 41 s".into(),
        settings: [
            ("benchmark", "split-mnist"),
            ("strategy", "der"),
            ("train-mb-size", "10"),
            ("batch-size-mem", "10"),
            ("mem-size", "200"),
            ("alpha", "0.2"),
            ("beta", "0.5"),
            ("lr", "0.03"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec(),
        summary: [
            ("final accuracy (class-incremental)", "83.2 %"),
            ("final accuracy (task-incremental)", "98.1 %"),
            ("forgetting (class-incremental)", "17.4 points"),
            ("training speed", "31 200 samples/s"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec(),
        ..ReportData::default()
    };
    for (i, name) in names.into_iter().enumerate() {
        data.experience_names.push(format!("{i}: classes {name}"));
        let lost = |j: usize, rate: f64| Some(0.993 - 0.004 * j as f64 - rate * (i - j) as f64);
        let row = |rate| (0..5).map(move |j| if j <= i { lost(j, rate) } else { Some(0.0) });
        data.accuracy.push(row(0.051).collect());
        data.accuracy_task.push(row(0.003).collect());
        let share = 200 / (2 * (i + 1));
        data.buffer.push(
            (0..2 * (i as u32 + 1))
                .map(|c| (c, share + c as usize % 3))
                .collect(),
        );
        for k in 0..1200u64 {
            let noise = ((k * 7919 + 13) % 101) as f64 / 101.0;
            let current = 2.0 * (-(k as f64) / 90.0).exp() + 0.15 * noise;
            let scale = if i == 0 { 0.3 } else { 1.0 };
            let (logits, replay) = (scale * (0.2 + 0.2 * noise), scale * 0.15 * (1.0 - noise));
            data.losses.push(LossPoint {
                step: i as u64 * 1200 + k,
                experience: i,
                loss: current + logits + replay,
                current,
                logits,
                replay,
            });
        }
    }
    data
}

/// Twenty experiences of five classes, with one accuracy missing.
fn wide() -> ReportData {
    let decay = |i: usize, j: usize| match i.checked_sub(j) {
        Some(age) => Some(0.8 * 0.9f64.powi(age as i32)),
        None => Some(0.0),
    };
    let mut data = example();
    data.experience_names = (0..20)
        .map(|i| format!("{i}: classes {}-{}", 5 * i, 5 * i + 4))
        .collect();
    data.accuracy = (0..20)
        .map(|i| (0..20).map(|j| decay(i, j)).collect())
        .collect();
    data.accuracy[7][3] = Some(f64::NAN);
    data.accuracy_task = data.accuracy.clone();
    data.buffer = (1..=20)
        .map(|i| (0..5 * i as u32).map(|class| (class, 100 / i)).collect())
        .collect();
    data
}

/// A run of one experience without replay and without names.
fn one() -> ReportData {
    let plain = |point: &LossPoint| LossPoint {
        loss: point.current,
        logits: 0.0,
        replay: 0.0,
        ..*point
    };
    ReportData {
        title: "One experience".into(),
        accuracy: vec![vec![Some(0.5)]],
        losses: example().losses[..600].iter().map(plain).collect(),
        buffer: vec![vec![(3, 10), (4, 12)]],
        ..ReportData::default()
    }
}

/// The page must not look elsewhere for anything, and its numbers must be numbers.
fn assert_sound(page: &str) {
    let bare = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in [
        "http://", "https://", "//cdn", "<script", "url(", "@import", "src=",
    ] {
        assert!(!bare.contains(forbidden), "{forbidden}");
    }
    for svg in page.split("<svg").skip(1) {
        let svg = svg.split("</svg>").next().unwrap();
        for broken in ["NaN", "inf", "2147483647", "-2147483648"] {
            assert!(!svg.contains(broken), "{broken} in {svg:.300}");
        }
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(!page.contains("could not be drawn"));
}

#[test]
fn shows_cells_names_and_charts() {
    let page = render(&example());
    assert_sound(&page);
    assert!(page.starts_with("<!DOCTYPE html>"));
    for text in [
        "99.3",
        "78.9",
        "98.1 %",
        "0: classes 5, 6",
        "train-mb-size",
        "class 9",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // Two accuracy charts, the losses, the buffer; 2 x 25 cells; 2 x 4 rows of forgetting.
    assert_eq!(page.matches("<svg").count(), 4);
    assert_eq!(page.matches("background:rgb(29 79 145").count(), 50);
    assert_eq!(page.matches("td class=\"meter\"").count(), 8);
    assert!(page.len() < 400_000, "{}", page.len());
    // Forgetting of the first experience: 99.3 when trained, 78.9 at the end.
    assert!(page.contains(r#"<td class="number">20.4</td>"#));
}

#[test]
fn every_text_is_escaped() {
    let evil = "<script>&\"'";
    let data = ReportData {
        title: evil.into(),
        subtitle: evil.into(),
        settings: vec![(evil.into(), evil.into())],
        summary: vec![(evil.into(), evil.into())],
        experience_names: vec![evil.into(), evil.into()],
        ..example()
    };
    let page = render(&data);
    assert_sound(&page);
    assert!(page.contains("&lt;script&gt;&amp;&quot;'"));
}

#[test]
fn nothing_recorded_still_makes_a_page() {
    let page = render(&ReportData::default());
    assert_sound(&page);
    assert_eq!(page.matches("<svg").count(), 0);
    for text in [
        "No accuracy",
        "No loss",
        "at least two",
        "Nothing was stored",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn one_experience_one_step_and_no_replay() {
    let mut data = one();
    data.losses.truncate(1);
    let page = render(&data);
    assert_sound(&page);
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.contains("current samples"));
    assert!(!page.contains("replayed logits"));
    assert!(page.contains("at least two"));
}

#[test]
fn what_is_not_a_number_is_na_and_a_gap() {
    let mut data = example();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308] {
        data.accuracy[2][1] = Some(bad);
        data.accuracy[4][0] = Some(bad);
        data.accuracy[1] = vec![None];
        for point in &mut data.losses[1000..3000] {
            (point.loss, point.current, point.logits) = (bad, bad, bad);
        }
        let page = render(&data);
        assert_sound(&page);
        assert!(page.contains("n/a"));
    }
    data.accuracy = vec![vec![Some(f64::NAN); 2]; 2];
    for point in &mut data.losses {
        (point.loss, point.current) = (f64::NAN, f64::NAN);
    }
    assert_sound(&render(&data));
}

#[test]
fn extreme_but_finite_values_are_drawn() {
    let mut data = example();
    for (value, step) in [(1e29, u64::MAX), (-1e29, 0), (1e-320, 5), (0.0, 5)] {
        for point in &mut data.losses[..10] {
            (point.loss, point.step) = (value, step);
        }
        data.buffer = vec![vec![(u32::MAX, usize::MAX), (0, usize::MAX)], vec![]];
        assert_sound(&render(&data));
    }
}

#[test]
fn thinning_keeps_means_and_borders() {
    let losses: Vec<_> = (0..1000)
        .map(|step| LossPoint {
            step,
            experience: usize::from(step >= 505),
            loss: if step >= 505 { 4.0 } else { 2.0 },
            ..LossPoint::default()
        })
        .collect();
    let series = scale::thin(&losses, |point| point.loss, 100);
    assert_eq!(series.len(), 2);
    assert_eq!(series[0].len(), 51);
    assert!(series[0].iter().all(|point| point.1 == Some(2.0)));
    assert!(series[1].iter().all(|point| point.1 == Some(4.0)));
    assert_eq!(series[0][0].0, 4.5);
}

#[test]
fn ticks_are_round() {
    assert_eq!(
        scale::ticks(0.0, 100.0, 5),
        (vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0], 0)
    );
    assert_eq!(
        scale::ticks(0.0, 2.3, 5),
        (vec![0.0, 0.5, 1.0, 1.5, 2.0], 1)
    );
    let colours: std::collections::BTreeSet<_> = (0..100).map(scale::colour).collect();
    assert!(colours.len() > 95, "{}", colours.len());
}

#[test]
fn the_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    std::fs::write(&path, "old").unwrap();
    write(&path, &example()).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), render(&example()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let missing = folder.path().join("none").join("report.html");
    let error = write(&missing, &example()).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == missing));

    // A folder cannot be replaced by a file, and the attempt leaves nothing behind.
    let occupied = folder.path().join("folder");
    std::fs::create_dir_all(occupied.join("inner")).unwrap();
    assert!(write(&occupied, &example()).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn twenty_experiences_of_a_hundred_classes() {
    let page = render(&wide());
    assert_sound(&page);
    assert!(page.contains("heat dense"));
    assert!(page.contains("class 99"));
    assert!(page.contains(r#"missing">n/a"#));
    assert!(page.len() < 400_000, "{}", page.len());
}
