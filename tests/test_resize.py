"""Squares cut out of photographs: geometry, quality at reduced decodes, histograms, and what is redone when."""

import os

import cv2
import numpy as np
import pandas as pd
import pytest

from preprocess import crop, photographs, resize
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import cut, outline, photograph
from preprocess.picture.disc import Disc
from preprocess.picture.photograph import Photograph, decode
from tests.test_crop import correct


def draw_disc(height, width, center_x, center_y, radius):
    """Return a picture whose pixels in the disc encode where they are: red = x, green = y, both in discs of 200."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(x - center_x, y - center_y) <= radius
    red = 100 + 100 * (x - center_x) / radius
    green = 100 + 100 * (y - center_y) / radius
    picture = np.stack([red, green, np.full_like(red, 50)], axis=-1)
    return np.where(inside[..., None], np.clip(picture, 1, 255), 0).astype(np.uint8)


@pytest.mark.parametrize("radius", [60.3, 120.0, 333.3])
@pytest.mark.parametrize("offset", [0.0, 0.37])
def test_disc_is_centred_and_fills_the_square(radius, offset):
    center = 400 + offset
    picture = draw_disc(801, 801, center, center - 20, radius)
    square, inside = cut.cut_out(picture, Disc(center, center - 20, radius, radius, 1), 256)
    position = np.mgrid[:256, :256] - 127.5
    core = np.hypot(*position) < 0.9 * 128
    for channel, along in enumerate(position[::-1]):
        assert np.abs(square[..., channel] - (100 + 100 * along / 128))[core].max() < 2
    assert inside.sum() == pytest.approx(np.pi * 128**2, rel=0.002)
    assert not square[~inside].any()


@pytest.mark.parametrize(("shape", "share"), [("ellipse", np.pi / 4), ("box", 1)])
def test_the_longer_axis_fills_the_square_and_the_aspect_is_kept(shape, share):
    picture = np.full((300, 400, 3), 200, np.uint8)
    _, inside = cut.cut_out(picture, Disc(200, 150, 100, 50, 1), 64, shape)
    assert inside.any(axis=0).sum() == 64
    assert inside.any(axis=1).sum() == 32
    assert inside.sum() == pytest.approx(share * 64 * 32, rel=0.01)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("size_px", [40, 301])
def test_a_whole_square_picture_of_the_right_size_comes_through_as_it_is(tmp_path, kind, size_px):
    path = tmp_path / f"1_left.{kind}"
    cv2.imwrite(
        str(path), np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3)).astype(np.uint8)
    )
    opened = Photograph(path)
    square, inside = cut.cut_square(opened, outline.measure(opened, "whole"), size_px, "box")
    assert np.array_equal(square, decode(path, size_px)[0])
    assert inside.all()


def test_black_where_the_photograph_ends():
    picture = np.full((100, 200, 3), 200, np.uint8)
    square, inside = cut.cut_out(picture, Disc(100, 40, 80, 80, 1), 160)
    rows = np.flatnonzero(inside.any(axis=1))
    assert rows[0] == pytest.approx(
        79.5 - 40.5, abs=0.51
    )  # the photograph begins 40.5 px above the centre
    assert rows[-1] == pytest.approx(79.5 + 59.5, abs=0.51)
    assert (square[inside] == 200).all()
    assert not square[~inside].any()
    with pytest.raises(Unusable, match="outside"):
        cut.cut_out(picture, Disc(500, 500, 20, 20, 1), 32)


def test_a_reduced_decode_costs_little(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    grain = cv2.GaussianBlur(rng.normal(0, 60, (2000, 3000, 3)), (0, 0), 3)
    picture = np.clip(draw_disc(2000, 3000, 1500, 1000, 950) * 0.5 + 60 + grain, 0, 255).astype(
        np.uint8
    )
    path = tmp_path / "1_left.jpeg"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    used, opened = [], Photograph(path)
    monkeypatch.setattr(
        photograph, "decode", lambda *asked: used.append(decode(*asked)) or used[-1]
    )
    row = outline.measure(opened, "whole", (1500, 1000, 950, 950))
    reduced, _ = cut.cut_square(opened, row, 512, "ellipse")
    assert [reduction for _, reduction in used] == [2]
    full, _ = cut.cut_out(decode(path, 2000)[0], Disc(1500, 1000, 950, 950, 1), 512)
    assert np.abs(reduced.astype(int) - full).mean() < 1.5


def run(data, cache, *options):
    crop.main([f"--data={data}", f"--cache={cache}", "--jobs=1", "--allow-rejected"])
    resize.main([f"--data={data}", f"--cache={cache}", "--jobs=1", "--size-px=64", *options])
    return {path.name: path.read_bytes() for path in sorted((cache / "resize" / "train").iterdir())}


def test_stage_writes_a_square_per_image_and_their_histograms(drawn_folder, cache):
    squares = run(drawn_folder, cache)
    named, histograms = next(photographs.iterate_histograms(cache, "train"))
    assert {f"{image}.png" for image in named} == set(squares)
    for image, histogram in zip(named, histograms, strict=True):
        square = cv2.imread(str(cache / "resize" / "train" / f"{image}.png"))[:, :, ::-1]
        assert square.shape == (64, 64, 3)
        counts = cut.count_pixels(np.ascontiguousarray(square))[:, 1:]
        assert (counts >= histogram[:, 1:]).all()
        assert (histogram[:, 1:].sum(axis=1) > 0.9 * counts.sum(axis=1)).all()


def test_a_second_run_reads_no_photograph_and_only_what_must_be_is_redone(
    data, cache, capsys, monkeypatch
):
    first = run(data, cache)
    with monkeypatch.context() as patched:
        patched.setattr(photographs, "work_on", None)
        assert run(data, cache) == first
    printed = capsys.readouterr().out
    assert "crop: train: all 8 images are cached" in printed
    assert "resize: train: all 8 images are cached" in printed
    image = pd.read_csv(cache / "crop" / "train.csv")["image"][0]
    correct(cache, f"{image},200,150,90,90")
    second = run(data, cache)
    assert "resize: train: 1 of 8 images are due" in capsys.readouterr().out
    assert [name for name in first if first[name] != second[name]] == [f"{image}.png"]
    os.remove(cache / "resize" / "train" / f"{image}.png")
    assert run(data, cache) == second
    run(data, cache, "--size-px=32")
    assert "8 of 8 images are due (size_px changed from 64 to 32)" in capsys.readouterr().out
    (data / "trainLabels.csv").unlink()
    (data / "train" / f"{image}.jpeg").unlink()
    assert list(run(data, cache, "--size-px=32")) == [
        name for name in first if name != f"{image}.png"
    ]


def test_a_damaged_crop_journal_is_named_and_no_square_is_lost(drawn_folder, cache):
    data, squares = drawn_folder, run(drawn_folder, cache)
    (cache / "crop" / "train.jsonl").write_bytes(b"")
    with pytest.raises(
        InputError,
        match=r"train\.jsonl: not what was written; run python -m preprocess\.crop again",
    ):
        resize.main([f"--data={data}", f"--cache={cache}", "--jobs=1", "--size-px=64"])
    assert run(data, cache) == squares


@pytest.mark.parametrize(
    "ellipse", ["-20,100,10,10", "5000,100,10,10", "150,110,1e6,1e6", "150,110,0.001,0.001"]
)
def test_a_correction_that_shows_no_eye_is_refused_or_rejected(data, cache, ellipse):
    image = next(iter(run(data, cache))).removesuffix(".png")
    correct(cache, f"{image},{ellipse}")
    with pytest.raises(InputError, match="too small or too large|outside the photograph"):
        run(data, cache)
