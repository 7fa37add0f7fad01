use super::*;

fn table(text: &str) -> toml::Table {
    toml::from_str(text).unwrap()
}

#[test]
fn later_layers_win() {
    let file = table("lr = 0.1\nmem-size = 50\nseed = 3");
    let line = table("mem-size = 60");
    let config = Config::from_layers([file, line]).unwrap();
    assert_eq!((config.lr, config.mem_size, config.beta), (0.1, 60, 0.5));
    assert_eq!(config.benchmark_seed, Some(3), "follows the seed");
}

#[test]
fn a_written_config_repeats_itself() {
    let layer = table("model = \"simple-mlp\"\nfixed-class-order = [1, 0]\nbatch-size-mem = 7");
    let config = Config::from_layers([layer]).unwrap();
    let text = toml::to_string(&config).unwrap();
    assert!(text.contains("lr = 0.03\n"), "{text}");
    let again = Config::from_layers([table(&text)]).unwrap();
    assert_eq!(again, config);
    assert_eq!((again.hidden_size, again.drop_rate), (Some(512), Some(0.5)));
}

#[test]
fn impossible_values_name_their_option() {
    for (text, option) in [
        ("mem-size = -1", "--mem-size"),
        ("mem-size = 0", "--mem-size"),
        ("seed = -1", "--seed"),
        ("train-mb-size = 0", "--train-mb-size"),
        ("eval-mb-size = 0", "--eval-mb-size"),
        ("batch-size-mem = 0", "--batch-size-mem"),
        ("train-epochs = 0", "--train-epochs"),
        ("n-experiences = 0", "--n-experiences"),
        ("log-every = 0", "--log-every"),
        ("num-workers = -1", "--num-workers"),
        (
            "model = \"mt-simple-mlp\"\nhead = \"incremental\"",
            "--head",
        ),
        ("num-workers = 1025", "--num-workers"),
        ("prefetch-factor = 0", "--prefetch-factor"),
        ("loggers = [\"none\", \"csv\"]", "--loggers"),
        ("lr = nan", "--lr"),
        ("lr = inf", "--lr"),
        ("lr = 0.0", "--lr"),
        ("alpha = nan", "--alpha"),
        ("beta = -0.5", "--beta"),
        ("momentum = nan", "--momentum"),
        ("nesterov = true", "--nesterov"),
        ("weight-decay = -1.0", "--weight-decay"),
        ("hidden-size = 0", "--hidden-size"),
        ("model = \"lenet5\"\nhidden-size = 10", "--hidden-size"),
        ("model = \"lenet5\"\nxavier = true", "--xavier"),
        ("model = \"simple-mlp\"\ndrop-rate = 1.5", "--drop-rate"),
        (
            "benchmark = \"split-fmnist\"\ndata = \"embedded\"",
            "--data",
        ),
        ("data-dir = \"x\"\ndata = \"embedded\"", "--data"),
        ("rotations-list = [10.0]", "--rotations-list"),
        (
            "benchmark = \"permuted-mnist\"\nfixed-class-order = [1]",
            "--fixed-class-order",
        ),
    ] {
        match Config::from_layers([table(text)]) {
            Err(Error::Config { name, .. }) => assert_eq!(name, option, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_file_is_told_where_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    for (text, wanted) in [
        (
            "lr = 0.1\nlearning-rate = 2",
            "in line 2: unknown field `learning-rate`",
        ),
        ("\n\nlr = \"fast\"", "in line 3"),
        ("lr = ", "in line 1"),
        (
            "benchmark = \"split-moon\"",
            "unknown variant `split-moon`, expected one of `split-mnist`",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let error = Config::read_table(&path).unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn data_is_embedded_unless_the_full_set_is_implied() {
    let data = |text: &str| Config::from_layers([table(text)]).unwrap().data;
    assert_eq!(data(""), Some(DataSource::Embedded));
    assert_eq!(data("data-dir = \"x\""), Some(DataSource::Full));
    assert_eq!(data("benchmark = \"split-fmnist\""), Some(DataSource::Full));
}
