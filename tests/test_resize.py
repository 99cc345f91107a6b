"""Squares cut out of photographs: geometry, quality at reduced decodes, histograms, and what is redone when."""

import os

import cv2
import numpy as np
import pandas as pd
import pytest

from preprocess import crop, photograph, resize, stage


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
    square, inside = resize.cut_out(picture, (center, center - 20, radius, radius), 256)
    y, x = np.mgrid[:256, :256]
    core = np.hypot(x - 127.5, y - 127.5) < 0.9 * 128
    expected = 100 + 100 * (x - 127.5) / 128
    assert np.abs(square[..., 0].astype(float) - expected)[core].max() < 2
    expected = 100 + 100 * (y - 127.5) / 128
    assert np.abs(square[..., 1].astype(float) - expected)[core].max() < 2
    assert inside.sum() == pytest.approx(np.pi * 128**2, rel=0.002)
    assert not square[~inside].any()


def test_the_longer_axis_fills_the_square_and_the_aspect_is_kept():
    picture = np.full((300, 400, 3), 200, np.uint8)
    _, inside = resize.cut_out(picture, (200, 150, 100, 50), 64)
    assert inside.any(axis=0).sum() == 64
    assert inside.any(axis=1).sum() == 32


def test_black_where_the_photograph_ends():
    picture = np.full((100, 200, 3), 200, np.uint8)
    square, inside = resize.cut_out(picture, (100, 40, 80, 80), 160)
    rows = np.flatnonzero(inside.any(axis=1))
    assert rows[0] == pytest.approx(79.5 - 40.5, abs=0.51)  # the photograph begins 40.5 px above the centre
    assert rows[-1] == pytest.approx(79.5 + 59.5, abs=0.51)
    assert (square[inside] == 200).all()
    assert not square[~inside].any()


def test_an_ellipse_outside_the_photograph_is_refused():
    with pytest.raises(photograph.UnreadablePhotograph, match="outside"):
        resize.cut_out(np.zeros((50, 50, 3), np.uint8), (500, 500, 20, 20), 32)


def test_histogram_counts_the_pixels_inside_only():
    square = np.zeros((4, 4, 3), np.uint8)
    square[1, 1] = (5, 6, 7)
    inside = np.zeros((4, 4), bool)
    inside[1, 1:3] = True
    counts = resize.count_pixels(square, inside)
    assert counts.shape == (3, 256)
    assert (counts.sum(axis=1) == 2).all()
    assert [counts[channel, 5 + channel] for channel in range(3)] == [1, 1, 1]
    assert (resize.decode_histogram(resize.encode_histogram(counts)) == counts).all()


def test_a_reduced_decode_costs_little(tmp_path):
    rng = np.random.default_rng(0)
    grain = cv2.GaussianBlur(rng.normal(0, 60, (2000, 3000, 3)), (0, 0), 3)
    picture = np.clip(draw_disc(2000, 3000, 1500, 1000, 950) * 0.5 + 60 + grain, 0, 255).astype(np.uint8)
    path = tmp_path / "1_left.jpeg"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    row = {"width": 3000, "height": 2000, "confidence": 1.0}
    row |= dict(zip(crop.ELLIPSE, (1500, 1000, 950, 950), strict=True))
    reduced, reduction = photograph.decode(path, resize.choose_short_side(row, 512))
    assert reduction == 2
    resize.write_square(reduced, reduction, row, 512, tmp_path / "reduced.png")
    resize.write_square(photograph.decode(path, 2000)[0], 1, row, 512, tmp_path / "full.png")
    squares = [cv2.imread(str(tmp_path / f"{name}.png")).astype(int) for name in ("reduced", "full")]
    assert np.abs(squares[0] - squares[1]).mean() < 1.5


def run(data, cache, *options):
    crop.main([f"--data={data}", f"--cache={cache}", "--jobs=1", "--allow-rejected"])
    resize.main([f"--data={data}", f"--cache={cache}", "--jobs=1", "--size-px=64", *options])
    return {path.name: path.read_bytes() for path in sorted((cache / "resize" / "train").iterdir())}


def test_stage_writes_a_square_per_image_and_their_histograms(drawn_folder, cache):
    squares = run(drawn_folder, cache)
    images, histograms = resize.read_histograms(cache, "train")
    assert {f"{image}.png" for image in images} == set(squares)
    for image, histogram in zip(images, histograms, strict=True):
        square = cv2.imread(str(cache / "resize" / "train" / f"{image}.png"))[:, :, ::-1]
        assert square.shape == (64, 64, 3)
        for channel in range(3):
            counts = np.bincount(square[..., channel].ravel(), minlength=256)
            assert (counts[1:] >= histogram[channel, 1:]).all()
            assert histogram[channel, 1:].sum() > 0.9 * counts[1:].sum()


def test_a_second_run_reads_no_photograph(drawn_folder, cache, capsys, monkeypatch):
    first = run(drawn_folder, cache)
    monkeypatch.setattr(resize, "resize_image", None)
    assert run(drawn_folder, cache) == first
    assert "resize: train: all 8 images are cached" in capsys.readouterr().out


def test_only_what_must_be_is_redone(data, cache, capsys):
    first = run(data, cache)
    image = pd.read_csv(cache / "crop" / "train.csv")["image"][0]
    (cache / "crop" / "corrections.csv").write_text(
        f"image,center_x,center_y,semi_axis_x,semi_axis_y\n{image},200,150,90,90\n"
    )
    capsys.readouterr()
    second = run(data, cache)
    assert "resize: train: 1 of 8 images are due" in capsys.readouterr().out
    assert [name for name in first if first[name] != second[name]] == [f"{image}.png"]
    os.remove(cache / "resize" / "train" / f"{image}.png")
    assert run(data, cache) == second
    run(data, cache, "--size-px=32")
    assert "8 of 8 images are due (size_px changed from 64 to 32)" in capsys.readouterr().out


def test_squares_of_removed_photographs_go(data, cache):
    names = list(run(data, cache))
    (data / "trainLabels.csv").unlink()
    (data / "train" / names[0].replace("png", "jpeg")).unlink()
    assert list(run(data, cache)) == names[1:]


def test_resize_without_crop_names_the_command(drawn_folder, cache):
    with pytest.raises(stage.InputError, match=r"run python -m preprocess\.crop first"):
        resize.main([f"--data={drawn_folder}", f"--cache={cache}", "--jobs=1"])


def test_a_damaged_crop_journal_is_named_and_no_square_is_lost(data, cache):
    squares = run(data, cache)
    (cache / "crop" / "train.jsonl").write_bytes(b"")
    with pytest.raises(
        stage.InputError, match=r"train\.jsonl: not what was written; run python -m preprocess\.crop again"
    ):
        resize.main([f"--data={data}", f"--cache={cache}", "--jobs=1", "--size-px=64"])
    assert run(data, cache) == squares


@pytest.mark.parametrize("ellipse", ["-20,100,10,10", "5000,100,10,10", "150,110,1e6,1e6", "150,110,0.001,0.001"])
def test_a_correction_that_shows_no_eye_is_refused_or_rejected(data, cache, ellipse):
    image = next(iter(run(data, cache))).removesuffix(".png")
    (cache / "crop" / "corrections.csv").write_text(
        f"image,center_x,center_y,semi_axis_x,semi_axis_y\n{image},{ellipse}\n"
    )
    with pytest.raises(stage.InputError, match="too small or too large|outside the photograph"):
        run(data, cache)
