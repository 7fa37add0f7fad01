//! `docs/avalanche.md` covers the whole page of Avalanche's `DER` and names only what exists. (That
//! each link leads to the right item is checked by `cargo doc`, which has the page as `unforget::avalanche`.)

use std::fs;
use std::path::Path;

const PARAMETERS: &str = "model optimizer criterion mem_size batch_size_mem alpha beta transforms \
    train_mb_size train_epochs train_passes eval_mb_size device plugins evaluator eval_every peval_mode";
const METHODS: &str = "backward check_model_and_optimizer criterion eval eval_dataset_adaptation \
    eval_epoch forward make_eval_dataloader make_optimizer make_train_dataloader model_adaptation \
    optimizer_step stop_training train train_dataset_adaptation training_epoch";
const ATTRIBUTES: &str = "adapted_dataset clock current_eval_stream dataloader device eval_mb_size \
    evaluator experience is_eval is_training loss mb_output mb_task_id mb_x mb_y mbatch model \
    optimizer plugins retain_graph train_epochs train_mb_size";

/// The rows of the table under a heading: the cells of each.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, part) = page
        .split_once(&format!("\n## {heading}\n"))
        .expect("the heading");
    let part = part.split("\n## ").next().unwrap_or(part);
    let table = part.lines().filter(|line| line.starts_with("| `"));
    table
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// Everything that the sources declare as public, in one text.
fn sources(folder: &Path, out: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push_str(&fs::read_to_string(path).expect("a text"));
        }
    }
}

#[test]
fn every_item_of_the_page_has_a_row_that_names_something_public_and_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/avalanche.md")).expect("the page");
    let mut source = String::new();
    sources(&root.join("src"), &mut source);
    for (heading, wanted) in [
        ("Constructor", PARAMETERS),
        ("Methods", METHODS),
        ("Attributes", ATTRIBUTES),
    ] {
        let rows = rows(&page, heading);
        for item in wanted.split_whitespace() {
            let name = format!("`{item}`");
            assert!(
                rows.iter().any(|row| row[0] == name),
                "{heading}: no row for {name}"
            );
        }
        for row in &rows {
            assert!(["same", "better", "different"].contains(&row[2]), "{row:?}");
            names_what_exists(root, &source, row);
        }
    }
    let beside = rows(&page, "Beside the page");
    assert!(beside.len() >= 9, "{beside:?}");
    beside
        .iter()
        .for_each(|row| names_what_exists(root, &source, row));
}

/// The second cell links to public items, the last names tests.
fn names_what_exists(root: &Path, source: &str, row: &[&str]) {
    let links: Vec<&str> = row[1].split("](crate::").skip(1).collect();
    assert!(!links.is_empty(), "{row:?} names nothing");
    for link in links {
        let path = link.split(')').next().expect("the end of a link");
        let item = path.rsplit("::").next().expect("a name");
        let kinds = ["fn", "struct", "enum", "trait", "type", "mod"];
        let declared = |kind: &&str| {
            [' ', '(', '<', '{', ';', ':']
                .iter()
                .any(|end| source.contains(&format!("{kind} {item}{end}")))
        };
        assert!(kinds.iter().any(declared), "{row:?}: {item} does not exist");
    }
    let last = row.last().expect("a cell");
    for file in last.split('`').filter(|word| word.ends_with(".rs")) {
        assert!(root.join(file).exists(), "{row:?}: {file} does not exist");
    }
}
