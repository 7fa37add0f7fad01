"""State dictionaries between this crate and PyTorch, checked by hand.

    python interop.py --export OUT.safetensors --model mlp [--seed 0]
    python interop.py --check FILE.safetensors --model simple-mlp [--classes N] [--logits LOGITS.safetensors]

`--check` loads strictly (no missing, extra or misshapen tensor). Both print as JSON the eval logits of two
samples of the formula input (README). `--logits` compares the module's logits with those in the file that
`unforget eval --model RUN --save-logits LOGITS.safetensors` wrote, and fails beyond 1e-5.
"""

import argparse
import json

import torch
from safetensors.torch import load_file, save_file

from common import formula_input, significant
from models import INPUT_SHAPE, build

MODELS = ("mlp", "simple-mlp", "simple-cnn", "lenet5", "slim-resnet18", "resnet18")


def resize_head(model: torch.nn.Module, classes: int) -> None:
    """Give the last Linear layer another number of outputs."""
    name = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)][-1]
    parent, _, leaf = name.rpartition(".")
    head = model.get_submodule(name)
    setattr(model.get_submodule(parent), leaf, torch.nn.Linear(head.in_features, classes))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--export", metavar="OUT", help="save a fresh state dictionary")
    action.add_argument("--check", metavar="FILE", help="load a state dictionary strictly")
    parser.add_argument("--model", required=True, choices=MODELS)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--logits", metavar="LOGITS", help="inputs and logits to compare with")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = build(options.model)
    if options.classes != 10:
        resize_head(model, options.classes)
    if options.export:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, options.export)
    else:
        model.load_state_dict(load_file(options.check), strict=True)
    with torch.no_grad():
        if options.logits:
            seen = load_file(options.logits)
            expected = model.eval()(seen["inputs"])
            worst = (expected - seen["logits"]).abs().max().item()
            print(f"{len(expected)} samples, largest difference of a logit {worst:.2e}")
            if not worst <= 1e-5 * max(1.0, expected.abs().max().item()):
                raise SystemExit("the logits differ")
        logits = model.eval()(formula_input(2, *INPUT_SHAPE[options.model]))
    rows = [[significant(v) for v in row] for row in logits.tolist()]
    print(json.dumps({"model": options.model, "classes": options.classes, "logits": rows}))


if __name__ == "__main__":
    main()
