"""Which models of timm train, predict, explain and export here? A row per model, printed as it goes.

python -m tests.benchmarks.models [--models NAME ...] [--pool mean] [--out models.md]

Each model is a process of its own, at the smallest size that it takes. A step of training (two
images, backward, AdamW), a prediction, heat at the fine and the last layer, a picture sent to the
page of submissions.serve, and the mean of one view as ONNX. The scores of the page and of ONNX are
compared with torch's: the head is scaled so that no score is saturated, the largest between 0.3 and
0.9. `vit_large` is followed by its shapes alone, with no numbers.
"""

import argparse
import copy
import tempfile
import time
import warnings
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch

from dr import export
from dr.machine import trial
from dr.nets import catalog, heat
from dr.nets.net import make_net
from dr.nets.pretrained import Pretrained
from dr.training import learner, views
from dr.training.checkpoint import Checkpoint
from dr.training.runs import Member
from preprocess.disk.errors import InputError
from preprocess.picture.square import Making
from submissions import ensemble as ensembles
from submissions import page
from tests.tasks import TASK
from tests.tiny import make_settings

SIZES_PX = (64, 70, 96, 128, 224, 256)  # tried in this order
MODELS = (
    "test_vit", "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "beit_base_patch16_224", "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_224", "vit_base_patch16_clip_224",
    "vit_relpos_small_patch16_224", "vit_small_r26_s32_224", "flexivit_small", "cait_xxs24_224",
    "xcit_nano_12_p16_224", "mixer_s16_224", "gmlp_s16_224", "volo_d1_224",
    "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "maxvit_rmlp_nano_rw_256", "mvitv2_tiny",
    "hiera_tiny_224", "twins_pcpvt_small", "pvt_v2_b0", "davit_tiny", "levit_128s", "efficientformer_l1",
    "resnet18", "resnet50", "densenet121", "convnext_tiny", "convnextv2_atto", "efficientnet_b0",
    "tf_efficientnet_lite0", "mobilenetv3_small_100", "regnety_002", "vgg11_bn", "xception41", "inception_v3",
    "repvgg_a0", "mobileone_s0", "fastvit_t8", "poolformer_s12", "hrnet_w18_small", "ghostnet_100",
    "crossvit_tiny_240", "pit_ti_224", "coat_tiny",
)  # fmt: skip
TRACED = "vit_large_patch16_224"
TITLES = (
    "model", "px", "maps", "format", "train", "predict", "fine", "last", "torch - page", "torch - ONNX", "s"
)  # fmt: skip


def find_size(name, pool):
    """Return the smallest size that a model takes. Raises InputError, with the last reason, if none of SIZES_PX is."""
    catalog.check(name, 0.0, pool)
    reason = None
    for size_px in SIZES_PX:
        try:
            make_net(name, size_px, 5, 0.0, False, pool=pool)
            return size_px
        except InputError as error:
            reason = error
    raise reason


def take_step(net, images):
    """Take a step of AdamW. Returns the loss."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    net.train()
    loss = torch.nn.functional.cross_entropy(net(images), torch.tensor([1, 3]))
    loss.backward()
    optimizer.step()
    return float(loss)


def scale_head(net, images):
    """Scale the last layer so that scores differ between images and none is saturated."""
    net.eval()
    with torch.inference_mode():
        logits = net(images)
    factor = 1.0 / float((logits - logits.mean(dim=0)).std().clamp_min(1e-12))
    net.head.outputs.weight.data *= min(factor, 1e4)
    with torch.inference_mode():
        net.head.outputs.bias.data -= net(images).mean(dim=0)


def make_member(net, name, size_px, pool):
    """Return the net as a member of an ensemble, as if dr.train had written its checkpoint."""
    settings = make_settings(net=name, pool=pool, crop_px=size_px, precision="float32")
    checkpoint = Checkpoint(
        epoch=1, settings=settings, task=TASK, making=Making("whole", size_px, "none"), mean=[127.5] * 3,
        std=[64.0] * 3, prior=[0.2] * 5, net=net.state_dict(), optimizer={}, scaler={}, n_images=2, distribution={},
        raw=None,
    )  # fmt: skip
    return Member(checkpoint, share=1.0, n_views=1, digest="")


def draw_noise(size_px):
    """Return three squares of noise, (3, size_px, size_px, 3) uint8 RGB."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, size_px, size_px, 3), dtype=np.uint8)


def measure_page(member, size_px, folder):
    """Return the largest difference of scores between torch and the page, which is sent a picture of noise."""
    pixels = draw_noise(size_px)[:1]
    cv2.imwrite(str(folder / "sent.png"), pixels[0, ..., ::-1])
    ensemble = ensembles.load([member], None, None, "cpu")
    kept = folder / "kept"
    kept.mkdir()
    with (folder / "sent.png").open("rb") as content:
        uploads = {"left": [("sent.png", content)]}
        graded = page.grade_uploads(ensemble, False, uploads, kept)
    (grade,) = graded.grades
    with torch.inference_mode():
        scores = views.Averaged([member]).eval()(torch.from_numpy(pixels))
    return float(np.abs(grade.scores - scores.numpy()[0]).max())


def measure_onnx(member, size_px, folder):
    """Return the largest difference of scores between torch and ONNX, and the largest score."""
    members = [member]
    difference = export.write_onnx(members, export.describe(members), folder / "net.onnx", False)
    with torch.inference_mode():
        scores = views.Averaged(members).eval()(torch.from_numpy(draw_noise(size_px)))
    return difference, float(scores.max())


def measure(name, pool):
    """Return a row of the table."""
    begun = time.perf_counter()
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    size_px = find_size(name, pool)
    net = make_net(name, size_px, 5, 0.0, False, pool=pool)
    pixels = torch.from_numpy(draw_noise(size_px))
    images = ((pixels.float() - 127.5) / 64.0).permute(0, 3, 1, 2)
    memory_format = learner.MEMORY_FORMAT
    if not trial.survives(net, memory_format):
        memory_format = torch.contiguous_format
        net.memory_format = memory_format
    net = net.to(memory_format=memory_format)
    loss = take_step(net, images[:2])
    scale_head(net, images)
    with torch.inference_mode():
        scores = net(images).softmax(dim=1)
    row = [name, str(size_px), f"{net.body.grids['last'].stride} px apart"]
    row.append("channels last" if memory_format is torch.channels_last else "contiguous")
    row += [f"loss {loss:.2f}", f"{float(scores.max()):.2f}"]
    for layer in ("fine", "last"):
        maps, stride, _ = heat.compute_heat(net, images, scores.argmax(dim=1).numpy(), layer)
        row.append(f"{maps.shape[1]}×{maps.shape[2]}, {stride} px")
    member = make_member(copy.deepcopy(net), name, size_px, pool)
    with tempfile.TemporaryDirectory() as folder:
        row.append(f"{measure_page(member, size_px, Path(folder)):.0e}")
        difference, largest = measure_onnx(member, size_px, Path(folder))
    row.append(f"{difference:.0e} of {largest:.2f}")
    row.append(f"{time.perf_counter() - begun:.0f}")
    return row


def run_alone(queue, name, pool):
    """Put a model's row, or why there is none, into a queue."""
    try:
        queue.put(measure(name, pool))
    except InputError as error:
        queue.put([name, str(error)])


def measure_alone(name, pool):
    """Return a model's row, measured by a process that may die."""
    context = get_context("fork")  # shares the libraries, which take seconds to import
    queue = context.SimpleQueue()
    process = context.Process(target=run_alone, args=(queue, name, pool))
    process.start()
    while process.is_alive() and queue.empty():
        time.sleep(0.1)
    if queue.empty():
        return [name, f"died: status {process.exitcode}"]
    row = queue.get()
    process.join()
    return row


def trace_large():
    """Return a row of a large model that is followed by its shapes alone."""
    with torch.device("meta"):
        body = Pretrained(TRACED, 224, 0.0, 0)
        maps = body(torch.empty(1, 3, 224, 224, device="meta"))
    n_weights = sum(parameter.numel() for parameter in body.parameters())
    shown = f"{n_weights / 1e6:.0f} M weights, pooled {tuple(maps.shape)}, fine: {body.grids['fine'].module}"
    return [TRACED, f"by shape: {shown}"]


def write_row(row):
    line = f"| {row[0]} | {' | '.join(row[1:])} |"
    return line + " |" * (len(TITLES) - len(row))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--pool", choices=("mean", "token"), default="mean")
    parser.add_argument("--out", type=Path, help="a file to add the rows to")
    options = parser.parse_args()
    torch.set_num_threads(1)  # before any process is forked, which has no threads of OpenMP
    lines = [write_row(list(TITLES)), write_row(["---"] * len(TITLES))]
    print(*lines, sep="\n", flush=True)
    for name in options.models:
        lines.append(write_row(measure_alone(name, options.pool)))
        print(lines[-1], flush=True)
        if options.out:
            options.out.write_text("\n".join(lines) + "\n")
    lines.append(write_row(trace_large()))
    print(lines[-1])
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
