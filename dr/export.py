"""Write a model that runs without this code: checkpoints -> OUT.onnx, or the weights of one net as OUT.safetensors.

The ONNX file holds the nets that dr.predict averaged last, from uint8 squares to scores, with
views, standardization and their mean. OUT.json says how a square is made, and OUT.md is a model
card. Not a medical device.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dr import card, validation
from dr.tasks.kinds import make_task
from dr.tasks.task import Task
from dr.training import runs, settings
from dr.training.runs import Member
from dr.validation import Validation
from preprocess.command import cli, pipeline, process
from preprocess.dataset import readers
from preprocess.disk import files
from preprocess.disk.errors import InputError

if TYPE_CHECKING:
    import onnx
    import torch

REQUIREMENTS = Path(__file__).with_name("onnx-requirements.txt")
SUFFIXES = (".onnx", ".safetensors")
OPSET = 17  # of 2022, which every runtime in use knows
LEAST_HALVED = 256  # numbers in a tensor; smaller ones, biases above all, weigh nothing and are kept as they are
TOLERANCE, HALF_TOLERANCE = 1e-4, 2e-2  # of the scores of the file against the nets' in float32
N_CHECKED = 3  # squares that both are given


def export(options: argparse.Namespace) -> None:
    """Write the file that is asked for, what tells how its squares are made, and the card."""
    run = runs.folder_of(options.cache, options.run)
    members = runs.read_members(run, options.checkpoint, options.views)
    of = members[0].checkpoint
    if any(
        (member.checkpoint.task, member.checkpoint.making) != (of.task, of.making)
        for member in members
    ):
        raise InputError(
            "the averaged models use different squares or tasks; choose one with --run"
        )
    described, told = describe(members), ""
    held_out = find_validation(options, of.task)
    if held_out is not None:
        points = of.task.choose_points(held_out.scores, held_out.targets)
        described["operating_points"] = card.describe_points(points)
    dataset = None
    if options.data.is_dir():
        dataset = readers.read_dataset(options.data, options.layout)
        asked = make_task(dataset.question)
        if asked != of.task:
            raise InputError(
                f"{options.data}: asks for {asked.names}, but the net tells {of.task.names}"
            )
    text = card.write_card(described, of.task, held_out, dataset)
    if options.out.suffix == ".onnx":
        told = f", scores off by {write_onnx(members, described, options.out, options.half):.1g} at most"
    else:
        write_weights(members, described, options.out, options.half)
    files.write_json(options.out.with_suffix(".json"), described)
    files.write_bytes(options.out.with_suffix(".md"), text.encode())
    print(
        f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB{told}; .json and .md beside it\n{pipeline.NOTICE}"
    )


def describe(members: Sequence[Member]) -> dict[str, Any]:
    """Return what a program that feeds the net must know, as plain numbers and names."""
    of = members[0].checkpoint
    side = of.making.size_px
    eyes = {"name": "eyes", "dtype": "int64", "shape": ["n"], "holds": "2 * patient + side, 0 or 1"}
    is_paired = any(member.checkpoint.settings.pairs for member in members)
    return ({"eyes": eyes} if is_paired else {}) | {
        "notice": pipeline.NOTICE,
        "version": pipeline.VERSION,
        "task": of.task.describe(),
        "making": of.making.describe(),
        "input": {"name": "squares", "dtype": "uint8", "shape": ["n", side, side, 3], "channels": "RGB", "holds":
                  "squares as preprocess.picture.square.make_square makes them, their lookup tables applied"},
        "output": {"name": "scores", "dtype": "float32", "shape": ["n", len(of.task.names)],
                   "columns": of.task.columns},
        "nets": [runs.describe_member(member) for member in members],
    }  # fmt: skip


def write_onnx(
    members: Sequence[Member], described: dict[str, Any], out: Path, is_half: bool
) -> float:
    """Write the mean of the nets and views; return by how much its scores differ from theirs in float32. Raises
    InputError if that is too much.
    """
    onnx, onnxruntime = process.import_libraries(REQUIREMENTS, "onnx", "onnxruntime")
    import torch

    from dr.training.views import Averaged

    mean, side = Averaged(members).eval(), members[0].checkpoint.making.size_px
    pixels = np.random.default_rng(0).integers(0, 256, (N_CHECKED, side, side, 3), dtype=np.uint8)
    given = {"squares": torch.from_numpy(pixels)}
    if "eyes" in described:
        given["eyes"] = torch.tensor([0, 1, 2])  # a patient's two eyes, and one alone
    with files.replacing(out) as partial:
        _trace_to_onnx(mean, given, partial, out)
        model = onnx.load(partial)
        if is_half:
            halve(model)
        onnx.helper.set_model_props(
            model, {key: json.dumps(value) for key, value in described.items()}
        )
        onnx.save(model, partial)
        session = onnxruntime.InferenceSession(partial, providers=["CPUExecutionProvider"])
        differences = []
        for n in (N_CHECKED, 1):
            some = {name: values[:n] for name, values in given.items()}
            (scores,) = session.run(None, {name: values.numpy() for name, values in some.items()})
            with torch.inference_mode():
                differences.append(np.abs(scores - mean(**some).numpy()).max())
        off = float(np.max(differences))  # NaN if one is
        if not off <= (HALF_TOLERANCE if is_half else TOLERANCE):
            raise InputError(
                f"{out}: not written: its scores would differ by {off:.1g} from the nets' own"
            )
    return off


def _trace_to_onnx(
    mean: torch.nn.Module, given: dict[str, torch.Tensor], partial: Path, out: Path
) -> None:
    """Write a net as ONNX. Raises InputError if ONNX lacks one of its operators.

    The exporter is the one by tracing: fifty times as fast here as its successor, and its files are smaller.
    """
    import torch

    names = [*given, "scores"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of what tracing may get wrong: the caller checks whether it did
            torch.onnx.export(
                mean, tuple(given.values()), partial, dynamo=False, opset_version=OPSET,
                input_names=list(given), output_names=["scores"], dynamic_axes={name: {0: "n"} for name in names},
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"{out}: not written: torch cannot write this net as ONNX ({reason})"
        ) from None


def halve(model: onnx.ModelProto) -> None:
    """Keep the weights of an ONNX model in float16; they become float32 again before anything is computed."""
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        numbers = onnx.numpy_helper.to_array(tensor)
        if numbers.dtype != np.float32 or numbers.size < LEAST_HALVED:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(check_half(numbers, name), f"{name}_float16"))
        casts.append(
            onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def check_half(numbers: np.ndarray, name: str) -> np.ndarray:
    """Return numbers as float16. Raises InputError if that cannot hold one."""
    with np.errstate(over="ignore"):
        halved = numbers.astype(np.float16)
    if not np.isfinite(halved).all():
        raise InputError(f"--half: a weight of {name} is beyond float16's range")
    return halved


def write_weights(
    members: Sequence[Member], described: dict[str, Any], out: Path, is_half: bool
) -> None:
    """Write the weights of one net, with its `mean` and `std`, as `dr.train --weights` takes them."""
    (safetensors,) = process.import_libraries(REQUIREMENTS, "safetensors.torch")
    if len(members) > 1:
        raise InputError(
            f"{out}: holds the weights of one net, not of {len(members)}; name one by --checkpoint"
        )
    import torch

    of = members[0].checkpoint
    weights = {name: value.contiguous() for name, value in of.net.items()}
    if is_half:
        kept = {name: value for name, value in weights.items() if value.is_floating_point()}
        weights |= {
            name: torch.from_numpy(check_half(value.numpy(), name)) for name, value in kept.items()
        }
    weights |= {"mean": torch.tensor(of.mean), "std": torch.tensor(of.std)}
    metadata = {key: json.dumps(value) for key, value in described.items()}
    files.write_bytes(out, safetensors.save(weights, metadata))


def find_validation(options: argparse.Namespace, task: Task) -> Validation | None:
    """Return the images that the nets of a cache held out; None of other nets, or if the cache does not know them."""
    run = runs.folder_of(options.cache, options.run)
    if options.checkpoint or not (run / validation.TARGETS).exists():
        return None
    return validation.read_validation(options.cache, options.run, task, is_blended=False)


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.make_bare_parser("dr.export", __doc__, "--data data --cache cache --out net.onnx")
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", metavar="FILE.pt", help="models, in place of --cache"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("cache"),
        help="folder of a finished run, whose averaged models are exported",
    )
    cli.add_data_options(parser, "training data of the model, for the model card")
    parser.add_argument(
        "--run",
        type=settings.parse_run,
        help="name of a run in the cache, instead of the one without a name",
    )
    parser.add_argument(
        "--views",
        type=cli.whole(1),
        help="views averaged per image (default: as many as dr.predict averaged)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="NAME.onnx|NAME.safetensors",
        help="file to write",
    )
    parser.add_argument(
        "--half", action="store_true", help="store the weights in float16, which halves the file"
    )
    options = parser.parse_args(argv)
    if options.out.suffix not in SUFFIXES:
        raise InputError(f"--out {options.out}: ends in none of {', '.join(SUFFIXES)}")
    for other in map(options.out.with_suffix, set(SUFFIXES) - {options.out.suffix}):
        if other.exists():
            raise InputError(
                f"--out {options.out}: {other} has the .json and .md of this name; give another one"
            )
    export(options)


if __name__ == "__main__":
    process.run(main)
