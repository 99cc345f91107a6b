"""Images per second of training, prediction and the loader: the plain way against this project's, side by side.

python -m tests.benchmarks.train [--image-px 448] [--batch-size 16] [--rounds 3] [--threads 2] [--device cpu]

Plain: float32, NCHW, ReLU before pooling, a DataLoader that crops, flips and standardizes sample by sample. Every
measurement is a process of its own, as memory settings are a process's; the ways take turns, and the best round counts,
as whatever else the machine does only slows down.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dr import dataset, device, model, passes, train
from dr.dataset import Photographs
from dr.settings import Settings

N_IMAGES = 64  # squares in memory, on a GPU as many batches
SECONDS = 4.0  # of each measurement, after one batch to warm up
TASKS = ("train", "predict", "load")
WAYS = ("plain", "ours")
ACTIVATION_MB = 180  # moved per training image at 448 px, if every fused step reads and writes its maps once
TRAINING_SET = 35_126


class PlainDataset(Dataset):
    """Crop, flip and standardize one sample at a time."""

    def __init__(self, photographs: Photographs, crop_px: int):
        self.photographs, self.crop_px = photographs, crop_px
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.photographs.images)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        top, left = self.rng.integers(0, self.photographs.size_px - self.crop_px + 1, 2)
        square = self.photographs.pixels[position, top : top + self.crop_px, left : left + self.crop_px]
        flips = self.rng.random(2) < 0.5
        square = square[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
        table = self.photographs.tables[position]
        channels = [table[square[:, :, channel], channel] for channel in range(3)]
        return torch.from_numpy(np.stack(channels)), position % 5


def make_plain_net(image_px: int) -> nn.Module:
    """Return the net in the article's order of layers."""
    layers, channels = [], 3
    for width, is_pooled in model.CONVOLUTIONS:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2, 1)] if is_pooled else []
        channels = width
    n_features = channels * model.find_pooled_px(image_px) ** 2
    head = [nn.Linear(n_features, model.HIDDEN), nn.BatchNorm1d(model.HIDDEN, affine=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), *head, nn.Linear(model.HIDDEN, 5))


def draw_photographs(crop_px: int, n: int, place: torch.device) -> Photographs:
    """Return noise, where the project would keep its squares."""
    rng = np.random.default_rng(0)
    size_px = round(crop_px / train.CROP_SHARE)
    pixels = rng.integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)
    pixels = torch.from_numpy(pixels).to(place) if place.type == "cuda" else pixels
    luts = rng.integers(0, 256, (n, 3, 256), dtype=np.uint8)
    return dataset.make_photographs([str(row) for row in range(n)], pixels, luts, np.full(3, 127), np.full(3, 70))


def measure_rate(run_batch: Callable[[], int], place: torch.device) -> float:
    """Return images per second of a function that works through a batch and returns its size."""
    run_batch()
    _wait(place)
    n_images, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        n_images += run_batch()
    _wait(place)
    return n_images / (time.perf_counter() - start)


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize()


def measure_plain(task: str, crop_px: int, batch_size: int, place: torch.device) -> float:
    """Return images per second of the plain way."""
    photographs = draw_photographs(crop_px, N_IMAGES, torch.device("cpu"))
    loader = DataLoader(PlainDataset(photographs, crop_px), batch_size, shuffle=True, drop_last=True)
    batches = (batch for _ in iter(int, 1) for batch in loader)
    net = make_plain_net(crop_px).to(place)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def load() -> int:
        return len(next(batches)[0])

    def learn() -> int:
        images, levels = next(batches)
        loss = nn.functional.cross_entropy(net(images.to(place)), levels.to(place))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return len(images)

    def predict() -> int:
        images, _ = next(batches)
        with torch.no_grad():
            net(images.to(place)).softmax(1).cpu()
        return len(images)

    net.train(task == "train")
    return measure_rate({"load": load, "train": learn, "predict": predict}[task], place)


def measure_ours(task: str, crop_px: int, batch_size: int, place: torch.device) -> float:
    """Return images per second of this project's way."""
    device.prepare(place)
    settings = Settings(crop_px=crop_px, batch_size=batch_size, precision=device.choose_precision("auto", place))
    photographs = draw_photographs(crop_px, max(N_IMAGES, batch_size), place)
    learner = train.make_learner(settings, np.arange(5), place)
    n = len(photographs.images)
    crops = dataset.draw_crops(n, photographs.size_px - crop_px, 0, 1)
    epochs = (dataset.order_epoch(np.arange(n), batch_size, 0, epoch) for epoch in iter(int, 1))
    batches = (
        batch for epoch in epochs for batch in dataset.iterate_batches(photographs, epoch, crops, crop_px, place)
    )
    targets = (torch.arange(n) % 5).to(place)
    eyes = torch.from_numpy(photographs.eyes).to(place)

    def load() -> int:
        return len(next(batches)[1])

    def learn() -> int:
        chosen, images = next(batches)
        rows = torch.from_numpy(chosen).to(place)
        passes.take_step(learner, passes.Batch(images, targets[rows], eyes[rows], rows), epoch=1)
        return len(chosen)

    def predict() -> int:
        _, images = next(batches)
        with torch.inference_mode(), device.autocast(place, settings.precision):
            learner.net(images).cpu().double().softmax(dim=1)
        return len(images)

    learner.net.train(task == "train")
    return measure_rate({"load": load, "train": learn, "predict": predict}[task], place)


def measure_bandwidth(place: torch.device) -> float:
    """Return GB/s of device memory: reading and writing a copy of 1 GB."""
    source = torch.empty(2**30, dtype=torch.uint8, device=place)
    target = torch.empty_like(source)
    return measure_rate(lambda: (target.copy_(source), 2)[1], place) * 2**30 / 1e9


def run_alone(options: argparse.Namespace, way: str, task: str) -> float:
    """Return images per second, measured in a process of its own."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if name != "measure"]
    command = [sys.executable, "-m", "tests.benchmarks.train", *arguments, "--measure", way, task]
    environment = os.environ | ({"OMP_WAIT_POLICY": "PASSIVE"} if way == "ours" else {})  # see dr.threads
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def compare(options: argparse.Namespace) -> None:
    """Print the table of both ways, and what it says of the aims."""
    rates = {(way, task): 0.0 for way in WAYS for task in TASKS}
    for _ in range(options.rounds):
        rates = {(way, task): max(rate, run_alone(options, way, task)) for (way, task), rate in rates.items()}
    place = torch.device(options.device)
    name = torch.cuda.get_device_name() if place.type == "cuda" else f"{options.threads} CPU threads"
    print(f"{options.image_px} px, batches of {options.batch_size}, {name}, torch {torch.__version__}, images/s:")
    for task in TASKS:
        plain, ours = (rates[way, task] for way in WAYS)
        print(f"  {task:8} plain {plain:9.1f}   ours {ours:9.1f}   ratio {ours / plain:5.2f}")
    print(f"  the loader alone is {rates['ours', 'load'] / rates['ours', 'train']:.0f} times as fast as training")
    print(f"  100 epochs of {TRAINING_SET:,} images: {100 * TRAINING_SET / rates['ours', 'train'] / 3600:.2f} hours")
    if place.type == "cuda":
        bandwidth = measure_bandwidth(place)
        share = rates["ours", "train"] * ACTIVATION_MB / 1000 / bandwidth
        print(f"  device memory {bandwidth:.0f} GB/s; training is at {share:.0%} of what it allows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-px", type=int, default=448)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "TASK"), help="one measurement, as a number")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.measure:
        compare(options)
        return
    way, task = options.measure
    measure = measure_plain if way == "plain" else measure_ours
    print(json.dumps(measure(task, options.image_px, options.batch_size, torch.device(options.device))))


if __name__ == "__main__":
    main()
