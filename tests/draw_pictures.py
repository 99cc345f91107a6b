"""Draw the README's pictures: an eye after every stage, the report, the page -> tests/pictures/*.jpg.

python -m tests.draw_pictures --data data/demo --cache cache/demo: the heat is that of the net which
the demo trained. The report and the page are photographed in Chromium, by playwright.
"""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from dr.look import ANYBODY
from dr.nets import heat
from dr.squares import crops, store
from dr.training import runs
from dr.training.learner import load_net
from preprocess.command import cli, pipeline, process
from preprocess.picture import square
from preprocess.synthetic import eyes
from submissions.report import __main__ as report

PICTURES = Path(__file__).parent / "pictures"
LEVEL = 3
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SEEN_PX = {"width": 1000, "height": 760}
QUALITY = 80  # of JPEG


def draw_stages(of):
    """Return the eye after each stage, caption -> (h, w, 3) uint8 RGB; the last is the checkpoint's heat over it."""
    seen, net = (
        eyes.draw_eye(1, 33, "left", LEVEL, 1024).photograph,
        load_net(of),
    )  # not the demo's seed
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "eye.png"
        cv2.imwrite(str(path), seen[..., ::-1])
        made = square.make_square(path, of.making)
    disc, batch = (
        made.disc,
        crops.cut_centers(store.gather([ANYBODY], [made], of.mean, of.std), net.image_px),
    )
    center, axes = (
        (round(disc.center_x), round(disc.center_y)),
        (round(disc.semi_axis_x), round(disc.semi_axis_y)),
    )
    (hot,), margin = (
        heat.map_heat(net, batch, np.array([LEVEL]), "fine"),
        (len(made.pixels) - net.image_px) // 2,
    )
    grey = cv2.cvtColor(made.pixels, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    hot = np.pad(hot, (margin, len(grey) - net.image_px - margin))
    return {
        "photograph": seen,
        "crop: the ellipse": cv2.ellipse(
            seen.copy(), center, axes, 0, 0, 360, (60, 230, 90), 8, cv2.LINE_AA
        ),
        "resize: a square": made.pixels,
        "normalize: flat histograms": cv2.LUT(made.pixels, np.ascontiguousarray(made.lut.T[None])),
        f"where the net sees level {LEVEL}": heat.blend_heat(grey, hot),
    }


def write_picture(out, pictures):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.6, 2.45), layout="constrained", facecolor="white")
    row = figure.subplots(
        1, len(pictures), width_ratios=[p.shape[1] / p.shape[0] for p in pictures.values()]
    )
    for axes, (caption, picture) in zip(row, pictures.items(), strict=True):
        axes.imshow(picture, interpolation="antialiased")
        axes.set_title(caption, fontsize=10)
        axes.set_axis_off()
    figure.savefig(
        out,
        dpi=130,
        bbox_inches="tight",
        pad_inches=0.05,
        pil_kwargs={"quality": 82, "optimize": True},
    )


@contextlib.contextmanager
def browsing():
    """Open a page of a browser's, as wide as SEEN_PX."""
    from playwright import sync_api

    (program, *_) = filter(None, map(shutil.which, BROWSERS))
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser.new_page(viewport=SEEN_PX)
        browser.close()


def photograph_report(data, cache, target):
    """Take a picture of the top of a run's report."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.html"
        places = [f"--data={data}", f"--cache={cache}", "--recipe=demo", "--name=demo"]
        report.main([*places, f"--out={out}"])
        with browsing() as page:
            page.goto(out.as_uri())
            page.screenshot(path=target, quality=QUALITY)


def photograph_page(data, cache, target):
    """Take a picture of the service's page that has graded both eyes of a patient."""
    pair = sorted((data / "test").glob("*.jpeg"))[:2]
    command = [sys.executable, "-m", "submissions.serve", f"--cache={cache}", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = next(filter(None, (re.search(r"http://\S+", line) for line in server.stdout)))
            with browsing() as page:
                page.goto(address[0])
                for side, path in zip(("left", "right"), pair, strict=True):
                    page.set_input_files(f"input[name={side}]", path)
                page.click("button")
                page.wait_for_selector("input[type=radio]", timeout=60_000)
                page.screenshot(path=target, quality=QUALITY)
        finally:
            server.terminate()


def main():
    parser = cli.make_bare_parser(
        "tests.draw_pictures", __doc__.splitlines()[0], "--data data/demo --cache cache/demo"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/demo"), help="what the demo has drawn"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("cache/demo"), help="where the demo has trained its net"
    )
    options = parser.parse_args()
    trained = runs.read_trained(options.cache / "dr")
    newest = runs.read_checkpoint(trained, max(trained.checkpoints))
    write_picture(PICTURES / "stages.jpg", draw_stages(newest))
    photograph_report(options.data, options.cache, PICTURES / "report.jpg")
    photograph_page(options.data, options.cache, PICTURES / "page.jpg")
    print(f"{PICTURES}: drawn eyes; {pipeline.NOTICE[0].lower()}{pipeline.NOTICE[1:]}")


if __name__ == "__main__":
    process.run(main)
