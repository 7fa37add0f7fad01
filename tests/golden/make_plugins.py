"""Short runs of Avalanche's plugins -> plugins.json: the loss of every iteration, and how the model ends.

    python make_plugins.py

Data by formula (samples below), three experiences of two classes, a perceptron 6-8-6, and the run of
each case in the order of CASES. Where a plugin draws random numbers that this crate does not draw (the
memories of GEM and A-GEM), the loader does not shuffle and the memory holds whole experiences, so that
the draws have no influence on the result.
"""

import random
import warnings

warnings.filterwarnings("ignore")

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as tensor_dataset
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier, MTSimpleMLP
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training import DER, ER_ACE, ICaRL, Naive
from avalanche.training.plugins import (
    AGEMPlugin, EvaluationPlugin, EWCPlugin, FromScratchTrainingPlugin, GDumbPlugin, GEMPlugin,
    LRSchedulerPlugin, LwFPlugin, MASPlugin, SynapticIntelligencePlugin,
)
from torch.optim.lr_scheduler import (
    CosineAnnealingLR, ExponentialLR, MultiStepLR, ReduceLROnPlateau, StepLR,
)

from common import HERE, provenance, significant, write_json


def samples(n, offset):
    x = [
        [((i + offset) * 7 + 13 * j) % 17 / 17 - 0.5 + (0.5 if j == i % 6 else 0) for j in range(6)]
        for i in range(n)
    ]
    return tensor_dataset(
        torch.tensor(x, dtype=torch.float64).float(), torch.tensor([i % 6 for i in range(n)]), task_labels=0
    )


class Recorder(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.losses, self.rates = [], []

    def before_update(self, strategy, **_):
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])

    def after_training_iteration(self, strategy, **_):
        self.losses.append(strategy.loss.item())


class Clip(SupervisedPlugin):
    """Avalanche has no clipping: PyTorch's, where ours works."""

    def __init__(self, clip, limit):
        super().__init__()
        self.clip, self.limit = clip, limit

    def before_update(self, strategy, **_):
        self.clip(strategy.model.parameters(), self.limit)


def copied(extract):
    """On the CPU the plugin's copies of weights and gradients are views of the live ones, so that nothing
    ever moves and the penalty stays zero; on a GPU they are copies, as they are here."""

    def extract_and_copy(model, target, excluded):
        extract(model, target, excluded)
        for data in target.values():
            data.data = data.data.clone()

    return staticmethod(extract_and_copy)


for name in ("extract_weights", "extract_grad"):
    setattr(SynapticIntelligencePlugin, name, copied(getattr(SynapticIntelligencePlugin, name)))


def not_negative(update):
    """A negative importance, which noise gives to parameters that hardly moved, pushes them away without
    bound and soon makes the loss infinite; this crate takes it as none."""

    def update_and_clamp(net, ewc_data, *rest, **options):
        update(net, ewc_data, *rest, **options)
        for data in ewc_data[1].values():
            data.data = data.data.clamp(min=0)

    return staticmethod(update_and_clamp)


SynapticIntelligencePlugin.update_ewc_data = not_negative(SynapticIntelligencePlugin.update_ewc_data)


class QuietGem(GEMPlugin):
    """Leaves the generator as it is when it shuffles a whole experience into its memory."""

    def after_training_exp(self, strategy, **kwargs):
        with torch.random.fork_rng():
            super().after_training_exp(strategy, **kwargs)


def schedule(make, **options):
    return lambda sgd: LRSchedulerPlugin(make(sgd), **options)


clip_norm, clip_value = torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_

# name -> (strategy's class and options, plugin made of the optimizer, options of the run)
CASES = {
    "naive": (Naive, {}, lambda _: None, {}),
    "ewc": (Naive, {}, lambda _: EWCPlugin(30.0), {}),
    "ewc-online": (Naive, {}, lambda _: EWCPlugin(30.0, mode="online", decay_factor=0.7), {}),
    "ewc-der": (DER, {}, lambda _: EWCPlugin(30.0), {}),
    "lwf": (Naive, {}, lambda _: LwFPlugin(2.0, 2.0), {}),
    "lwf-alphas": (Naive, {}, lambda _: LwFPlugin([0.0, 0.5, 3.0], 1.5), {}),
    "lwf-der": (DER, {}, lambda _: LwFPlugin(2.0, 2.0), {}),
    "si": (Naive, {}, lambda _: SynapticIntelligencePlugin(2000.0), {}),
    "si-excluded": (
        Naive, {}, lambda _: SynapticIntelligencePlugin([1.0, 3000.0], eps=0.01, excluded_parameters=["classifier"]), {},
    ),
    "si-der": (DER, {}, lambda _: SynapticIntelligencePlugin(2000.0), {}),
    "mas": (Naive, {}, lambda _: MASPlugin(0.5, 0.3), {}),
    "ewc-growing": (Naive, {}, lambda _: EWCPlugin(30.0), {"head": "growing"}),
    "ewc-online-growing": (Naive, {}, lambda _: EWCPlugin(30.0, mode="online", decay_factor=0.7), {"head": "growing"}),
    "lwf-growing": (Naive, {}, lambda _: LwFPlugin(2.0, 2.0), {"head": "growing"}),
    "si-growing": (Naive, {}, lambda _: SynapticIntelligencePlugin(2000.0), {"head": "growing"}),
    "mas-growing": (Naive, {}, lambda _: MASPlugin(0.5, 0.3), {"head": "growing"}),
    "ewc-heads": (Naive, {}, lambda _: EWCPlugin(30.0), {"head": "multi"}),
    "lwf-heads": (Naive, {}, lambda _: LwFPlugin(2.0, 2.0), {"head": "multi"}),
    "mas-heads": (Naive, {}, lambda _: MASPlugin(0.5, 0.3), {"head": "multi"}),
    "gem-heads": (Naive, {}, lambda _: QuietGem(20, 0.3), {"head": "multi", "in_order": True}),
    "from-scratch": (Naive, {}, lambda _: FromScratchTrainingPlugin(), {}),
    "gdumb": (Naive, {}, lambda _: GDumbPlugin(20), {}),
    "er-ace": (ER_ACE, {"mem_size": 12, "batch_size_mem": 4}, lambda _: None, {}),
    "agem": (Naive, {}, lambda _: AGEMPlugin(20, 40), {"in_order": True}),
    "gem": (Naive, {}, lambda _: QuietGem(20, 0.3), {"in_order": True}),
    "gem-der": (DER, {}, lambda _: QuietGem(20, 0.3), {"in_order": True}),
    "clip-norm": (DER, {}, lambda _: Clip(clip_norm, 0.4), {}),
    "clip-value": (DER, {}, lambda _: Clip(clip_value, 0.05), {}),
    "lr-step": (DER, {}, schedule(lambda o: StepLR(o, 2, 0.5)), {"epochs": 5}),
    "lr-step-kept": (
        Naive, {}, schedule(lambda o: StepLR(o, 2, 0.7), reset_scheduler=False, reset_lr=False), {"epochs": 3},
    ),
    "lr-multistep": (
        Naive, {}, schedule(lambda o: MultiStepLR(o, [2, 3, 3, 7], 0.6), step_granularity="iteration"), {},
    ),
    "lr-exponential": (Naive, {}, schedule(lambda o: ExponentialLR(o, 0.8), first_epoch_only=True, step_granularity="iteration"), {}),
    "lr-cosine": (
        Naive, {}, schedule(lambda o: CosineAnnealingLR(o, 3, 0.01), step_granularity="iteration"), {"epochs": 3},
    ),
    "lr-first-exp": (Naive, {}, schedule(lambda o: StepLR(o, 1, 0.5), first_exp_only=True), {}),
    "lr-plateau": (
        Naive, {}, schedule(lambda o: ReduceLROnPlateau(o, factor=0.5, patience=1, threshold=0.2, cooldown=1), metric="train_loss"),
        {"epochs": 8},
    ),
    "lr-plateau-val": (
        Naive, {}, schedule(lambda o: ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.02, min_lr=0.02), metric="val_loss"),
        {"epochs": 5, "eval_every": 1},
    ),
}

REPLAY = {"mem_size": 10, "batch_size_mem": 4, "alpha": 0.2, "beta": 0.5}


def run(strategy, options, make_plugin, settings):
    random.seed(0)
    head = settings.get("head")
    benchmark = nc_benchmark(samples(60, 0), samples(24, 5), 3, head == "multi", seed=0)
    torch.manual_seed(123)
    if head == "multi":
        model = MTSimpleMLP(input_size=6, hidden_size=8)
        model.features[2].p = 0.0
    else:
        model = torch.nn.Sequential()
        model.features = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU())
        model.classifier = torch.nn.Linear(8, 6)
        if head == "growing":
            model.classifier = IncrementalClassifier(8, 2)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recorder, plugin = Recorder(), make_plugin(sgd)
    agent = strategy(
        model=model, optimizer=sgd, criterion=torch.nn.CrossEntropyLoss(), train_mb_size=5, eval_mb_size=8,
        train_epochs=settings.get("epochs", 2), eval_every=settings.get("eval_every", -1),
        plugins=[p for p in (plugin, recorder) if p is not None], evaluator=EvaluationPlugin(loggers=[]),
        **(REPLAY if strategy is DER else options),
    )
    for experience in benchmark.train_stream:
        # The keyword reaches the loaders of evaluations too, so it is there only where it is wanted.
        order = {"shuffle": False} if settings.get("in_order") else {}
        agent.train(experience, eval_streams=[benchmark.test_stream], **order)
    return {
        "losses": [significant(x) for x in recorder.losses],
        "rates": [significant(x) for x in recorder.rates] if isinstance(plugin, LRSchedulerPlugin) else [],
        "weights": [significant(x) for x in next(agent.model.parameters())[0].tolist()],
    }


def run_icarl():
    """Class order ascending, so that the memory's order is the same; the classifier by nearest means."""
    benchmark = nc_benchmark(
        samples(60, 0), samples(24, 5), 3, False, shuffle=False, fixed_class_order=list(range(6))
    )
    torch.manual_seed(123)
    features = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU())
    classifier = torch.nn.Linear(8, 6)
    recorder = Recorder()
    agent = ICaRL(
        feature_extractor=features, classifier=classifier, memory_size=24, buffer_transform=None, fixed_memory=True,
        optimizer=torch.optim.SGD([*features.parameters(), *classifier.parameters()], lr=0.05, momentum=0.9),
        train_mb_size=5, eval_mb_size=8, train_epochs=2, plugins=[recorder],
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True), loggers=[]),
    )
    accuracies = []
    for experience in benchmark.train_stream:
        agent.train(experience)
        results = agent.eval(benchmark.test_stream)
        (accuracy,) = (v for k, v in results.items() if k.startswith("Top1_Acc_Stream/eval"))
        accuracies.append(significant(accuracy))
    return {
        "losses": [significant(x) for x in recorder.losses],
        "accuracies": accuracies,
        "weights": [significant(x) for x in features[0].weight[0].tolist()],
    }


torch.set_num_threads(1)
cases = {name: run(*case) for name, case in CASES.items()}
cases["icarl"] = run_icarl()
write_json(HERE / "plugins.json", {"provenance": provenance("make_plugins.py", "common.py"), "cases": cases})
