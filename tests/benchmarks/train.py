"""Images per second of training, prediction and the loader: the plain way against this project's, side by side.

python -m tests.benchmarks.train [--image-px 448] [--batch-size 16] [--rounds 3] [--threads 2] [--device cpu]

Plain: float32, NCHW, ReLU before pooling, a DataLoader that crops, flips and standardizes sample by sample. Every
measurement is a process of its own, as memory settings are a process's; the ways take turns, and the best round counts,
as whatever else the machine does only slows down.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dr.machine import device
from dr.nets.nine_conv import CONVOLUTIONS, HIDDEN
from dr.squares import batches, crops, draws, store
from dr.squares.store import Squares
from dr.training import learner, passes
from preprocess.samples.retina import TASK
from tests.tiny import make_settings

N_IMAGES = 64  # squares in memory, on a GPU as many batches
SECONDS = 4.0  # of each measurement, after one batch to warm up
TASKS = ("train", "predict", "load")
WAYS = ("plain", "ours")
ACTIVATION_MB = 180  # moved per training image at 448 px, if every fused step reads and writes its maps once
TRAINING_SET = 35_126


class PlainDataset(Dataset):
    """Crop, flip and standardize one sample at a time."""

    def __init__(self, squares: Squares, crop_px: int):
        self.squares, self.crop_px = squares, crop_px
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        top, left = self.rng.integers(0, self.squares.size_px - self.crop_px + 1, 2)
        square = self.squares.pixels[position, top : top + self.crop_px, left : left + self.crop_px]
        flips = self.rng.random(2) < 0.5
        square = square[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
        table = self.squares.tables[position]
        return torch.from_numpy(np.stack([table[square[:, :, rgb], rgb] for rgb in range(3)])), position % 5


def make_plain_net() -> nn.Module:
    """Return the net in the article's order of layers."""
    layers, channels = [], 3
    for width, is_pooled in CONVOLUTIONS:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2, 1)] if is_pooled else []
        channels = width
    head = [nn.LazyLinear(HIDDEN), nn.BatchNorm1d(HIDDEN, affine=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), *head, nn.Linear(HIDDEN, 5))


def draw_squares(crop_px: int, n: int) -> Squares:
    """Return noise on the host."""
    rng, size_px = np.random.default_rng(0), round(crop_px / learner.CROP_SHARE)
    pixels = rng.integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)
    tables = store.compose_tables(rng.integers(0, 256, (n, 3, 256), dtype=np.uint8), [127.0] * 3, [70.0] * 3)
    return Squares(2 * np.arange(n), pixels, tables)


def measure_rate(run_batch: Callable[[], int], on: torch.device) -> float:
    """Return images per second of a function that works through a batch and returns its size."""
    wait = torch.cuda.synchronize if on.type == "cuda" else lambda: None
    run_batch()
    wait()
    n_images, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        n_images += run_batch()
    wait()
    return n_images / (time.perf_counter() - start)


def measure_plain(task: str, crop_px: int, batch_size: int, on: torch.device) -> float:
    """Return images per second of the plain way."""
    squares = draw_squares(crop_px, N_IMAGES)
    loader = DataLoader(PlainDataset(squares, crop_px), batch_size, shuffle=True, drop_last=True)
    drawn = (batch for _ in itertools.count() for batch in loader)
    net = make_plain_net().to(on)
    net(torch.zeros(2, 3, crop_px, crop_px, device=on))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def run_batch() -> int:
        images, levels = next(drawn)
        if task == "train":
            loss = nn.functional.cross_entropy(net(images.to(on)), levels.to(on))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        elif task == "predict":
            with torch.no_grad():
                net(images.to(on)).softmax(1).cpu()
        return len(images)

    net.train(task == "train")
    return measure_rate(run_batch, on)


def measure_ours(task: str, crop_px: int, batch_size: int, on: torch.device) -> float:
    """Return images per second of this project's way."""
    device.prepare(on)
    precision = device.choose_precision("auto", on)
    settings = make_settings(crop_px=crop_px, batch_size=batch_size, precision=precision)
    squares = draw_squares(crop_px, max(N_IMAGES, batch_size))
    if on.type == "cuda":
        pixels, tables = (torch.from_numpy(part).to(on) for part in (squares.pixels, squares.tables))
        squares = Squares(squares.eyes, pixels, tables)
    made, n = learner.make_learner(settings, TASK, np.arange(5), on), len(squares)
    cuts = crops.draw_crops(n, squares.size_px - crop_px, 0, 1)
    epochs = (batches.order_epoch(np.arange(n), batch_size, 0, epoch) for epoch in itertools.count())
    drawn = (batch for epoch in epochs for batch in batches.iterate_batches(squares, epoch, cuts, crop_px, on))
    targets, eyes = (torch.arange(n) % 5).to(on), torch.from_numpy(squares.eyes).to(on)

    def run_batch() -> int:
        chosen, images = next(drawn)
        if task == "train":
            rows = torch.from_numpy(chosen).to(on)
            keys = draws.make_keys(0, draws.DROPOUT, 1, rows)
            passes.take_step(made, images, targets[rows], keys, eyes[rows])
        elif task == "predict":
            with torch.inference_mode(), device.autocast(on, precision):
                made.net(images).cpu().double().softmax(dim=1)
        return len(chosen)

    made.net.train(task == "train")
    return measure_rate(run_batch, on)


def run_alone(options: argparse.Namespace, way: str, task: str) -> float:
    """Return images per second, measured in a process of its own."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if name != "measure"]
    command = [sys.executable, "-m", "tests.benchmarks.train", *arguments, "--measure", way, task]
    environment = os.environ | ({"OMP_WAIT_POLICY": "PASSIVE"} if way == "ours" else {})  # see dr.machine.workers
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def compare(options: argparse.Namespace) -> None:
    """Print the table of both ways, and what it says of the aims."""
    rates = {(way, task): 0.0 for way in WAYS for task in TASKS}
    for _ in range(options.rounds):
        rates = {(way, task): max(rate, run_alone(options, way, task)) for (way, task), rate in rates.items()}
    on = torch.device(options.device)
    name = torch.cuda.get_device_name() if on.type == "cuda" else f"{options.threads} CPU threads"
    print(f"{options.image_px} px, batches of {options.batch_size}, {name}, torch {torch.__version__}, images/s:")
    for task in TASKS:
        plain, ours = (rates[way, task] for way in WAYS)
        print(f"  {task:8} plain {plain:9.1f}   ours {ours:9.1f}   ratio {ours / plain:5.2f}")
    training = rates["ours", "train"]
    print(f"  the loader alone is {rates['ours', 'load'] / training:.0f} times as fast as training")
    print(f"  100 epochs of {TRAINING_SET:,} images: {100 * TRAINING_SET / training / 3600:.2f} hours")
    if on.type == "cuda":
        source, target = torch.empty((2, 2**30), dtype=torch.uint8, device=on)
        bandwidth = measure_rate(lambda: (target.copy_(source), 2)[1], on) * 2**30 / 1e9  # GB read and written a second
        share = training * ACTIVATION_MB / 1000 / bandwidth
        print(f"  device memory {bandwidth:.0f} GB/s; training is at {share:.0%} of what it allows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("image-px", 448), ("batch-size", 16), ("rounds", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "TASK"), help="one measurement, as a number")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.measure:
        compare(options)
        return
    measure = {"plain": measure_plain, "ours": measure_ours}[options.measure[0]]
    print(measure(options.measure[1], options.image_px, options.batch_size, torch.device(options.device)))


if __name__ == "__main__":
    main()
