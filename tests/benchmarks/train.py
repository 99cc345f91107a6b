"""Images per second of training, prediction and the loader: the plain way against this project's, side by side.

python -m tests.benchmarks.train [--image-px 448] [--batch-size 16] [--rounds 3] [--device cpu] [--ways WAY...]
python -m tests.benchmarks.train --epoch 35126 [--batch-size 64] [--device cuda] [--ways WAY...]

Plain: float32, NCHW, ReLU before pooling, a DataLoader that crops, flips and standardizes sample by sample. Ours: a
precision, perhaps with +tf32 (float32 whose convolutions multiply 10 bits of it), +nchw (maps in that order) or
+compiled (torch.compile on the body). Every measurement is a process of its own, as memory settings are a process's;
the ways take turns, and the best round counts. The second form trains epochs as dr.train does, on squares where it
keeps them, on a GPU in its memory, settles BatchNorm and checks a seventh as many; the second epoch counts.
"""

import argparse
import functools
import itertools
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from dr.machine import device
from dr.nets.head import HIDDEN
from dr.nets.nine_conv import CONVOLUTIONS
from dr.squares import batches, crops, draws, store
from dr.training import learner, passes, schedule, views
from preprocess.command import progress
from tests.tasks import TASK
from tests.tiny import make_settings

SECONDS = 4.0  # of each measurement, after one batch to warm up
N_DRAWN = 64  # squares of noise, or as many as a batch has; an epoch's repeat them


def make_plain_net(crop_px, on):
    """Return the article's net in its order of layers, with the outputs of levels."""
    layers = []
    for width, is_pooled in CONVOLUTIONS:
        layers += [nn.LazyConv2d(width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        if is_pooled:
            layers.append(nn.MaxPool2d(3, 2, 1))
    layers += [nn.Flatten(), nn.Dropout(), nn.LazyLinear(HIDDEN)]
    layers += [nn.BatchNorm1d(HIDDEN, affine=False), nn.ReLU(), nn.Linear(HIDDEN, 5)]
    net = nn.Sequential(*layers).to(on)
    net(torch.zeros(2, 3, crop_px, crop_px, device=on))
    return net


def make_plain(squares, crop_px, batch_size, on):
    """Return the plain way: the net in the article's order of layers, endless batches, a step and a prediction."""
    rng = np.random.default_rng(0)

    def collate(positions):
        """Crop, flip and standardize one sample at a time."""
        images = []
        for pixels, table in (
            (squares.pixels[position], squares.tables[position]) for position in positions
        ):
            top, left = rng.integers(0, squares.size_px - crop_px + 1, 2)
            down, right = rng.choice([-1, 1], 2)
            cut = pixels[top : top + crop_px, left : left + crop_px][::down, ::right]
            images.append(
                torch.from_numpy(np.stack([table[cut[:, :, rgb], rgb] for rgb in range(3)]))
            )
        return torch.stack(images), torch.tensor(positions) % 5

    net = make_plain_net(crop_px, on)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def take_step(images, levels):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images.to(on)), levels.to(on)).backward()
        optimizer.step()

    loader = DataLoader(
        range(len(squares)), batch_size, shuffle=True, drop_last=True, collate_fn=collate
    )
    drawn = itertools.chain.from_iterable(itertools.repeat(loader))
    return net, drawn, take_step, lambda images: net(images.to(on)).softmax(1).cpu()


def make_learner(way, crop_px, batch_size, on, **changes):
    """Return a learner of one of our ways; with other settings than the article's, if any."""
    device.prepare(on)
    precision, *kinds = way.split("+")
    torch.backends.cudnn.allow_tf32 = "tf32" in kinds
    precision = device.choose_precision(precision, on)
    settings = make_settings(crop_px=crop_px, batch_size=batch_size, precision=precision, **changes)
    made = learner.make_learner(settings, TASK, np.arange(5), on)
    if "nchw" in kinds:
        made.net.to(memory_format=torch.contiguous_format)
        made.net.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    if "compiled" in kinds:
        made.net.body.compile()  # the head's hashing has products that torch 2.11 cannot compile for a GPU
    return made


def make_ours(squares, crop_px, batch_size, on, way, **changes):
    """Return our way, likewise."""
    squares, made, n = (
        put(squares, on),
        make_learner(way, crop_px, batch_size, on, **changes),
        len(squares),
    )
    cuts = crops.draw_crops(n, squares.size_px - crop_px, 0, 1)
    epochs = (
        batches.order_epoch(np.arange(n), batch_size, 0, epoch) for epoch in itertools.count()
    )
    drawn = (
        batch[::-1]
        for order in epochs
        for batch in batches.iterate_batches(squares, order, cuts, crop_px, on)
    )
    targets, eyes = (torch.arange(n) % 5).to(on), torch.from_numpy(squares.eyes).to(on)

    def take_step(images, chosen):
        rows = torch.from_numpy(chosen).to(on)
        passes.take_step(
            made, images, targets[rows], draws.make_keys(0, draws.DROPOUT, 1, rows), eyes[rows]
        )

    def predict(images):
        with device.autocast(on, made.settings.precision):
            return made.net(images).cpu().double().softmax(dim=1)

    return made.net, drawn, take_step, predict


def make_squares(n, crop_px):
    """Return squares of noise."""
    rng, size_px = np.random.default_rng(0), round(crop_px / learner.CROP_SHARE)
    luts, pixels = (
        rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        for shape in ((3, 256), (size_px, size_px, 3))
    )
    return store.Squares(
        2 * np.arange(n), pixels, store.compose_tables(luts, [127.0] * 3, [70.0] * 3)
    )


def put(squares, on):
    """Return squares where dr.train keeps them: on a GPU in its memory."""
    if on.type == "cpu":
        return squares
    return store.Squares(squares.eyes, torch.from_numpy(squares.pixels).to(on), squares.tables)


def wait_for(on):
    """Wait for what a GPU was given to do."""
    if on.type == "cuda":
        torch.cuda.synchronize()


def measure_epoch(way, n, crop_px, batch_size, on):
    """Return images per second of an epoch's training, of settling, and of checking, and the gigabytes it took."""
    on, rows = torch.device(on), np.arange(n) % N_DRAWN
    few = put(make_squares(N_DRAWN, crop_px), on)
    squares = store.Squares(2 * np.arange(n), few.pixels[rows], few.tables[rows])
    made, seconds = make_learner(way, crop_px, batch_size, on), []
    positions, n_checked = np.arange(n), n // 7
    cuts = crops.center_crops(n, squares.size_px - crop_px)
    for due in (schedule.Epoch(number, False, number - 1, number, 60, 1e-3) for number in (1, 2)):
        started = [time.perf_counter()]
        passes.train_epoch(made, squares, rows % 5, positions, due)
        started.append(time.perf_counter())
        passes.update_batch_norm(made, squares, positions, due)
        wait_for(on)
        started.append(time.perf_counter())
        with progress.tracking(n_checked, "checked") as bar:
            views.score(
                made.net,
                squares,
                positions[:n_checked],
                cuts,
                made.settings.precision,
                batch_size,
                bar,
                "levels",
            )
        seconds = np.diff([*started, time.perf_counter()])
    counts = n, min(passes.STATISTICS_IMAGES, n // 2), n_checked
    return [
        *np.divide(counts, seconds),
        torch.cuda.max_memory_allocated() / 1e9 if on.type == "cuda" else np.nan,
    ]


def measure(way, task, crop_px, batch_size, on):
    """Return images per second of a task, one way."""
    on = torch.device(on)
    squares = make_squares(max(N_DRAWN, batch_size), crop_px)
    make = make_plain if way == "plain" else functools.partial(make_ours, way=way)
    net, drawn, take_step, predict = make(squares, crop_px, batch_size, on)
    return count_images(task, net, drawn, take_step, predict, on)


def count_images(task, net, drawn, take_step, predict, on, seconds=SECONDS, n_warm_up=1):
    """Return images per second of a task, or of drawing batches alone, after some batches to warm up."""
    net.train(task == "train")

    def work():
        images, which = next(drawn)
        if task == "train":
            take_step(images, which)
        elif task == "predict":
            with torch.inference_mode():
                predict(images)
        return len(images)

    for _ in range(n_warm_up):
        work()
    wait_for(on)
    n_images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        n_images += work()
    wait_for(on)
    return n_images / (time.perf_counter() - start)


TASKS = ("train", "predict", "load")


def alone(function, *arguments):
    """Return what a function returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def choose_waiting(way):
    """Have the threads of processes that start from now on wait as dr.train's do, see dr.machine.workers; not plain."""
    os.environ.pop("OMP_WAIT_POLICY", None)
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE"} if way != "plain" else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("image-px", 448), ("batch-size", 16), ("rounds", 3), ("epoch", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", nargs="+", default=["auto"], help="ours")
    options = parser.parse_args()
    what = options.image_px, options.batch_size, options.device
    print(
        f"{options.image_px} px, batches of {options.batch_size}, {options.device}, images/s:",
        flush=True,
    )
    if options.epoch:
        for way in options.ways:
            choose_waiting(way)
            *rates, taken = alone(measure_epoch, way, options.epoch, *what)
            shown = ", ".join(
                f"{name} {rate:,.0f}"
                for name, rate in zip(("train", "settle", "check"), rates, strict=True)
            )
            print(
                f"  epoch of {options.epoch} images, {way:18} {shown}; {taken:.1f} GB", flush=True
            )
        return
    rates = dict.fromkeys(itertools.product(["plain", *options.ways], TASKS), 0.0)
    for _, (way, task) in itertools.product(range(options.rounds), rates):
        choose_waiting(way)
        rates[way, task] = max(rates[way, task], alone(measure, way, task, *what))
    for task, way in itertools.product(TASKS, options.ways):
        plain, ours = rates["plain", task], rates[way, task]
        print(
            f"  {task:8} plain {plain:9.1f}   ours, {way:18} {ours:9.1f}   ratio {ours / plain:5.2f}"
        )


if __name__ == "__main__":
    main()
