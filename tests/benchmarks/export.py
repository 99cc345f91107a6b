"""An exported net beside torch's: megabytes, squares per second on the processor, what float16 weights cost in scores.

python -m tests.benchmarks.export --cache CACHE [--views 1] [--batch-size 16]

Squares are noise, as speed does not depend on them; scores are of them, too, and of the nets that dr.predict averaged.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from dr import export
from dr.training import runs
from dr.training.views import Averaged
from preprocess.command import cli

SECONDS, N_SCORED = 5.0, 64


def count(score, squares, batch_size):
    """Return the scores, and how many squares are scored per second."""
    score(squares[:batch_size])  # to warm up
    started, n = time.monotonic(), 0
    while time.monotonic() - started < SECONDS:
        score(squares[:batch_size])
        n += batch_size
    rate = n / (time.monotonic() - started)
    parts = [
        score(squares[start : start + batch_size]) for start in range(0, len(squares), batch_size)
    ]
    return np.concatenate(parts), rate


def main():
    parser = cli.make_bare_parser(
        "tests.benchmarks.export", __doc__.splitlines()[0], "--cache cache/demo"
    )
    parser.add_argument("--cache", type=Path, default=Path("cache/demo"))
    parser.add_argument("--views", type=cli.whole(1), default=1)
    parser.add_argument("--batch-size", type=cli.whole(1), default=16)
    options = parser.parse_args()
    members = runs.read_members(options.cache / "dr", None, options.views)
    mean, side = (
        Averaged(members).eval().to(memory_format=torch.channels_last),
        members[0].checkpoint.making.size_px,
    )
    squares = np.random.default_rng(0).integers(0, 256, (N_SCORED, side, side, 3), dtype=np.uint8)

    @torch.inference_mode()
    def score(some):
        return mean(torch.from_numpy(some)).numpy()

    own, rate = count(score, squares, options.batch_size)
    print(
        f"{len(members)} nets, {options.views} views, {side} px, {torch.get_num_threads()} threads, float32"
    )
    print(f"{'torch':14}{'':10}  {rate:7.1f} squares/s")
    with tempfile.TemporaryDirectory() as folder:
        for name, is_half in (("onnx", False), ("onnx, float16", True)):
            path = Path(folder) / f"{is_half}.onnx"
            export.write_onnx(members, export.describe(members), path, is_half)
            threads = onnxruntime.SessionOptions()
            threads.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(path, threads)
            scores, theirs = count(
                lambda some, of=session: of.run(None, {"squares": some})[0],
                squares,
                options.batch_size,
            )
            off, size_mb = np.abs(scores - own), path.stat().st_size / 1e6
            print(
                f"{name:14}{size_mb:7.2f} MB  {theirs:7.1f} squares/s, {theirs / rate:.2f} of torch's",
                end="   ",
            )
            print(f"scores off by {off.max():.1g}, {off.mean():.1g} on average")


if __name__ == "__main__":
    main()
