"""What rounding costs: train in float32 with chosen tensors rounded to bfloat16 or float16, on any processor.

python -m tests.benchmarks.precision --data DIR --cache DIR --out DIR [--variants NAME...] [--seeds N...] [OPTION...]

The cache must hold squares (`python -m preprocess`); further options are dr.train's. A variant says what is rounded,
and backward the gradients of the same tensors: `float32` nothing; `bfloat16` all that autocast rounds (inputs, weights
and outputs of convolutions, outputs of BatchNorm); `bfloat16-TENSOR` all but one kind of tensor (input, weights,
before, after, gradients, block1); `bfloat16+centered` all, with the bias of each convolution moved so that what
BatchNorm subtracts is near 0 before it is rounded; and the same with float16, its range too, with the gradients scaled
into it as `dr.train --precision float16` does. `auto` emulates nothing: it is `dr.train`'s own on this processor.
Prints, per variant and seed, the log losses and kappa of the last epoch, and over the seeds their mean and spread.

With --gradients no net is trained: in the float32 nets of --out, epoch by epoch, the gradient of one batch is computed
with each variant's rounding. Prints how far it lies from the exact one, as a share of its length (root mean square over
the nets), and how far the gradient of another batch lies from it: the noise that training has anyway.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dr import train
from dr.nets.net import Net
from dr.squares import crops, store
from dr.training import checkpoint, learner
from dr.training import epochs as training_epochs
from dr.training.checkpoint import Checkpoint
from preprocess.command import process
from tests.tasks import read_training_set

BATCH_SIZE = 32  # of whose gradients are compared
SCALE = 2.0**10  # of the loss then, for float16's range: as far as GradScaler comes in the demo
KINDS = ("input", "weights", "before", "after", "gradients", "block1")
FIGURES = ("train_log_loss", "valid_log_loss", "valid_qwk")


class Round(torch.autograd.Function):
    """Rounds a tensor, and perhaps its gradient."""

    @staticmethod
    def forward(
        context, tensor: torch.Tensor, kind: torch.dtype, is_gradient: bool
    ) -> torch.Tensor:
        """Return the tensor as it would be kept in `kind`."""
        context.kind = kind if is_gradient else None
        return tensor.to(kind).to(tensor.dtype)

    @staticmethod
    def backward(context, gradient: torch.Tensor):
        """Return the gradient, rounded if that is asked for."""
        rounded = gradient if context.kind is None else gradient.to(context.kind).to(gradient.dtype)
        return rounded, None, None


def emulate(net: Net, kind: torch.dtype, spared: set[str]) -> None:
    """Have the convolutions and BatchNorms of a nine-conv net round what autocast would, but for what is spared."""
    with_gradients = "gradients" not in spared

    def rounder(tensor_kind: str) -> Callable[[torch.Tensor], torch.Tensor]:
        if tensor_kind in spared:
            return lambda tensor: tensor
        return lambda tensor: Round.apply(tensor, kind, with_gradients)

    for number, (convolution, norm, *_) in enumerate(net.body.blocks):
        if number == 0 and "block1" in spared:
            continue
        _round_convolution(convolution, rounder("input"), rounder("weights"), rounder("before"))
        _round_output(norm, rounder("after"))


def _round_convolution(
    layer: nn.Conv2d, of_input: Callable, of_weights: Callable, of_output: Callable
) -> None:
    def forward(images: torch.Tensor) -> torch.Tensor:
        return of_output(
            layer._conv_forward(of_input(images), of_weights(layer.weight), of_weights(layer.bias))
        )

    layer.forward = forward


def _round_output(layer: nn.Module, of_output: Callable) -> None:
    plain = layer.forward
    layer.forward = lambda features: of_output(plain(features))


def center(net: Net) -> None:
    """Move each convolution's bias by what its BatchNorm subtracts: the same net, with smaller numbers between them."""
    with torch.no_grad():
        for convolution, norm, *_ in net.body.blocks:
            convolution.bias -= norm.running_mean
            norm.running_mean.zero_()


def measure_gradients(
    cache: Path, data: Path, out: Path, variants: Sequence[str]
) -> dict[str, list[float]]:
    """Return each variant's errors, and those of "another batch", one per kept epoch of each float32 net."""
    training_set = read_training_set(data, cache)
    errors: dict[str, list[float]] = {}
    for path in sorted(out.glob("float32-*/dr/epochs/[0-9]*.pt")):
        of = checkpoint.read(path)
        rows = np.flatnonzero(~training_set.find_held_out(of.settings.folds, of.settings.fold))[
            : 2 * BATCH_SIZE
        ]
        cached, targets = (
            training_set.squares.select(rows),
            torch.tensor(training_set.targets[rows]),
        )
        squares = store.load(
            cached, of.mean, of.std, torch.device("cpu"), "memory", out / "unused.npy"
        )
        images = crops.cut_centers(squares, of.settings.crop_px)

        first, second = slice(BATCH_SIZE), slice(BATCH_SIZE, None)
        exact = find_gradient(of, "float32", images[first], targets[first])
        others = {"another batch": find_gradient(of, "float32", images[second], targets[second])}
        others |= {
            name: find_gradient(of, name, images[first], targets[first]) for name in variants
        }
        for name, found in others.items():
            errors.setdefault(name, []).append(float((found - exact).norm() / exact.norm()))
    return errors


def find_gradient(
    of: Checkpoint, variant: str, images: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return the gradient of the log loss by all convolutions' weights, as a variant rounds it, flat."""
    net = prepare(learner.load_net(of), variant).train()
    logits = net(images, torch.arange(len(images)))
    (SCALE * torch.nn.functional.cross_entropy(logits, targets)).backward()
    return torch.cat([layer.weight.grad.flatten() for layer, *_ in net.body.blocks]) / SCALE


def prepare(net: Net, variant: str) -> Net:
    """Have a net round what a variant says; return it."""
    name, _, centered = variant.partition("+")
    kind, *spared = name.split("-")
    if kind not in ("float32", "auto"):
        emulate(net, getattr(torch, kind), set(spared))
    if centered:
        net.register_forward_pre_hook(lambda net, _: center(net) if net.training else None)
    return net


def run_variant(
    variant: str, seed: int, options: argparse.Namespace, further: list[str]
) -> dict[str, float]:
    """Train one net; return the figures of its last epoch."""
    cache, precision = options.out / f"{variant}-{seed}", "auto" if variant == "auto" else "float32"
    made = learner.make_learner

    def make_rounding(*arguments):
        learning = made(*arguments)
        prepare(learning.net, variant)
        return learning._replace(
            scaler=torch.amp.GradScaler("cpu", enabled=variant.startswith("float16"))
        )

    cache.mkdir(parents=True, exist_ok=True)
    for folder in ("crop", "resize", "normalize", "standardize", "rejected.csv"):
        if (options.cache / folder).exists() and not (cache / folder).exists():
            (cache / folder).symlink_to((options.cache / folder).resolve())
    training_epochs.learner.make_learner = make_rounding
    try:
        common = [f"--data={options.data}", f"--cache={cache}"]
        train.main([*common, f"--seed={seed}", f"--precision={precision}", *further])
    finally:
        training_epochs.learner.make_learner = made
    figures = sorted((cache / "dr" / "epochs").glob("*.json"))
    return json.loads([path for path in figures if path.stem.isdigit()][-1].read_text())


def main(argv: list[str] | None = None) -> None:
    """Train every variant with every seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="with squares; it is read only")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="where the nets are kept; a second run goes on there",
    )
    parser.add_argument(
        "--variants", nargs="+", default=["float32", "bfloat16", "bfloat16+centered", "float16"]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--gradients", action="store_true", help="train nothing: compare gradients in the nets kept"
    )
    options, further = parser.parse_known_args(argv)
    if options.gradients:
        errors = measure_gradients(options.cache, options.data, options.out, options.variants)
        print(
            f"gradients of {len(errors['another batch'])} float32 nets, error as a share of their length:"
        )
        for name, values in errors.items():
            print(
                f"{name:24} {np.sqrt(np.mean(np.square(values))):8.4f}   worst {max(values):8.4f}"
            )
        return
    print(f"{'variant':24} {'seed':>4}" + "".join(f" {name:>15}" for name in FIGURES), flush=True)
    for variant in options.variants:
        rows = []
        for seed in options.seeds:
            figures = run_variant(variant, seed, options, further)
            rows.append([figures[name] for name in FIGURES])
            print(
                f"{variant:24} {seed:4}" + "".join(f" {value:15.4f}" for value in rows[-1]),
                flush=True,
            )
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1 if len(rows) > 1 else 0)
        print(
            f"{variant:24} mean"
            + "".join(f" {m:7.4f} ±{s:6.4f}" for m, s in zip(mean, spread, strict=True))
        )


if __name__ == "__main__":
    process.run(main)
