"""Squares: crops, flips and lookup tables, the same on host and device; whole batches; the stored pixels."""

import contextlib
import json

import cv2
import numpy as np
import pytest
import torch
from scipy import stats

from dr.squares import batches, crops, draws, store
from dr.squares.pixels import DecodedPixels, read_rows
from dr.squares.source import CachedSquares
from dr.squares.store import Squares
from preprocess import crop
from preprocess.command import resources
from preprocess.dataset.dataset import Subject
from preprocess.disk import files
from preprocess.disk.errors import InputError
from preprocess.picture.square import Making, keep_values
from tests import tiny
from tests.tasks import read_training_set

SIZE_PX = 12
CROP_PX = 8
N = 9
MARGIN_PX = SIZE_PX - CROP_PX
ALL = np.arange(N)
UNCHANGED = (0, 1, 0, 1, 1, 0)  # angle, zoom, shift, brightness, gain, offset
TURNED = {"rotation_deg": 180, "zoom": (0.8, 1.3), "shift": 0.1}


LUTS = np.random.default_rng(1).integers(0, 256, (N, 3, 256), dtype=np.uint8)
MEAN = [120.0, 90, 60]
STD = [50.0, 40, 30]


@pytest.fixture
def squares():
    pixels = np.random.default_rng(0).integers(0, 256, (N, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    return Squares(2 * ALL, pixels, store.compose_tables(LUTS, MEAN, STD))


@pytest.mark.parametrize("jitter", [0, 0.3])
def test_crop_flip_table_and_colours_agree_with_plain_indexing(squares, jitter):
    """Pixels are brightened, to 255 at most; colours are stretched and shifted per channel, on standardized values."""
    brightness = (0.5, 1.5) if jitter else (1, 1)
    cuts = crops.draw_crops(N, MARGIN_PX, seed=3, epoch=1, jitter=jitter, brightness=brightness)
    assert 0 < cuts.is_flipped_vertically.sum() < N
    np.testing.assert_allclose(
        squares.tables, (LUTS.transpose(0, 2, 1) - MEAN) / STD, rtol=1e-6, atol=1e-6
    )
    batch = crops.cut_batch(squares, ALL, cuts, CROP_PX).numpy()
    for position in range(N):
        top = cuts.top[position]
        left = cuts.left[position]
        square = squares.pixels[position][top : top + CROP_PX, left : left + CROP_PX]
        if cuts.is_flipped_vertically[position]:
            square = square[::-1]
        if cuts.is_flipped_horizontally[position]:
            square = square[:, ::-1]
        square = np.rint(np.minimum(square * cuts.brightness[position], 255)).astype(int)
        table = squares.tables[position] * cuts.gain[position] + cuts.offset[position]
        for channel in range(3):
            np.testing.assert_array_equal(
                batch[position, channel], table[:, channel][square[:, :, channel]]
            )


@pytest.fixture
def ramps():
    """Six squares of 64 px that are ramps, two grey levels a px: channel 0 tells x, channel 1 tells y."""
    y, x = np.mgrid[:64, :64] * 2
    pixels = np.repeat(np.stack([x, y, (x + y) // 2], axis=2)[None].astype(np.uint8), 6, axis=0)
    return Squares(2 * np.arange(6), pixels, store.compose_tables(keep_values(6), [0] * 3, [1] * 3))


@pytest.mark.parametrize(
    "changes", [{}, {"jitter": 0.3, "brightness": (0.3, 2)}, TURNED, {"shift": 0.2}], ids=str
)
def test_device_cuts_as_the_host_does(squares, ramps, changes):
    """The same bytes; turned or shifted, within a grey level: interpolation rounds."""
    is_turned = "shift" in changes
    positions = np.array([5, 0, 5, 3])
    for on_host in (ramps,) if is_turned else (squares, ramps):
        crop_px = on_host.size_px * 5 // 8
        cuts = crops.draw_crops(len(on_host), on_host.size_px - crop_px, 3, 2, **changes)
        on_device = Squares(on_host.eyes, torch.from_numpy(on_host.pixels), on_host.tables)
        host = crops.cut_batch(on_host, positions, cuts, crop_px)
        device = crops.cut_batch(on_device, positions, cuts, crop_px)
        assert (host - device).abs().max() <= (1 if is_turned else 0)
        assert (host - device).abs().mean() < 0.05
        assert all(
            batch.is_contiguous(memory_format=torch.channels_last) for batch in (host, device)
        )


def test_turned_crop_shows_what_lies_at_the_turned_places(ramps):
    """On ramps a pixel's value is the place that it came from."""
    cuts = crops.draw_crops(6, 24, seed=0, epoch=1, rotation_deg=20, zoom=(0.9, 1.2), shift=0.1)
    batch = crops.cut_batch(ramps, np.arange(6), cuts, 40).numpy()
    offset = np.arange(40) - 19.5
    for row in range(6):
        dy, dx = np.meshgrid(offset, offset, indexing="ij")
        if cuts.is_flipped_vertically[row]:
            dy = -dy
        if cuts.is_flipped_horizontally[row]:
            dx = -dx
        shift_right, shift_down = cuts.shift[row]
        dx = dx - 40 * shift_right
        dy = dy - 40 * shift_down
        cosine = np.cos(cuts.angle[row])
        sine = np.sin(cuts.angle[row])
        x = cuts.left[row] + 19.5 + (cosine * dx - sine * dy) / cuts.zoom[row]
        y = cuts.top[row] + 19.5 + (sine * dx + cosine * dy) / cuts.zoom[row]
        is_inside = (x > 0) & (x < 63) & (y > 0) & (y < 63)
        assert is_inside.mean() > 0.8
        assert np.abs(batch[row, 0] - 2 * x)[is_inside].max() <= 0.6  # rounding
        assert np.abs(batch[row, 1] - 2 * y)[is_inside].max() <= 0.6


def test_sample_depends_neither_on_its_batch_nor_on_the_thread_that_cuts_ahead(squares):
    cuts = crops.draw_crops(N, MARGIN_PX, seed=0, epoch=1)
    whole = crops.cut_batch(squares, ALL, cuts, CROP_PX)
    order = np.random.default_rng(0).permutation(N)
    parts = np.split(order, [2, 3, 7])
    separate = [crops.cut_batch(squares, part, cuts, CROP_PX) for part in parts]
    assert torch.equal(torch.cat(separate), whole[order])
    iterated = list(batches.iterate_batches(squares, parts, cuts, CROP_PX, torch.device("cpu")))
    assert np.array_equal(np.concatenate([positions for positions, _ in iterated]), order)
    assert torch.equal(torch.cat([images for _, images in iterated]), whole[order])


SPREAD = {  # drawn values -> the same as a share of their bounds, -1 to 1
    "angle": lambda values: values / (np.pi / 2),
    "zoom": lambda values: np.log(values) / np.log(1.25),
    "shift": lambda values: values / 0.1,
    "brightness": lambda values: (values - 0.7) / 0.2,
    "gain": lambda values: np.log(values) / np.log(1.3),
    "offset": lambda values: values / 0.3,
}


@pytest.mark.parametrize("name", ["places", "top", "left", "flips", *SPREAD])
def test_draws_are_uniform_within_their_bounds_and_independent(name):
    """512 - 448 + 1 = 65 places each way: chi-squared over all 4,225; flips are fair coins, independent of all else.

    Real numbers are drawn from -1 to 1, scaled to their bounds or the logarithms of these, separately per channel.
    """
    options = {
        "rotation_deg": 90,
        "zoom": (0.8, 1.25),
        "shift": 0.1,
        "brightness": (0.5, 0.9),
        "jitter": 0.3,
    }
    drawn = crops.draw_crops(200_000, 64, seed=0, epoch=1, **options)
    flips = 2 * drawn.is_flipped_vertically + drawn.is_flipped_horizontally
    counted = {
        "places": (drawn.top * 65 + drawn.left, 65**2),
        "top": (drawn.top, 65),
        "left": (drawn.left, 65),
        "flips": (drawn.top * 4 + flips, 4 * 65),
    }
    if name in counted:
        values, n_values = counted[name]
        counts = np.bincount(values, minlength=n_values)
        assert len(counts) == n_values
        assert stats.chisquare(counts).pvalue > 0.001
    else:
        values = SPREAD[name](getattr(drawn, name))[:50_000]
        assert stats.kstest(np.ravel(values), stats.uniform(-1, 2).cdf).pvalue > 0.001
        if values.ndim == 2:
            correlations = np.corrcoef(values.T)[np.triu_indices(values.shape[1], 1)]
            assert np.abs(correlations).max() < 0.02


def test_draws_depend_on_seed_epoch_and_stream_but_not_on_how_many_positions_there_are():
    plain = {"seed": 5, "epoch": 3, "stream": draws.CROPS}
    many = crops.draw_crops(2000, 64, **plain)
    for one, other in zip(crops.draw_crops(10, 64, **plain), many, strict=True):
        np.testing.assert_array_equal(one, other[:10])
    for change in ({"seed": 1}, {"epoch": 2}, {"stream": draws.VIEWS}):
        other = crops.draw_crops(2000, 64, **plain | change)
        assert abs(np.corrcoef(many.top, other.top)[0, 1]) < 0.1
        assert abs(np.corrcoef(many.is_flipped_vertically, other.is_flipped_vertically)[0, 1]) < 0.1


def test_no_margin_leaves_one_place_the_centre_is_in_the_middle_and_nothing_is_changed_unasked():
    """Nor does it matter to the places what else is drawn."""
    assert not crops.draw_crops(50, 0, seed=0, epoch=1).top.any()
    centre = crops.center_crops(50, 64)
    plain = crops.draw_crops(50, 64, seed=0, epoch=1)
    for fields, values in (
        (centre[:4], (32, 32, 0, 0)),
        (centre[4:], UNCHANGED),
        (plain[4:], UNCHANGED),
    ):
        assert all((field == value).all() for field, value in zip(fields, values, strict=True))
    other = crops.draw_crops(50, 64, seed=0, epoch=1, brightness=(0.5, 2), jitter=0.3, **TURNED)
    assert all(np.array_equal(one, two) for one, two in zip(plain[:4], other[:4], strict=True))
    across = crops.draw_crops(50, 64, seed=0, epoch=1, flips="horizontal")
    assert not across.is_flipped_vertically.any()
    assert np.array_equal(across.is_flipped_horizontally, plain.is_flipped_horizontally)
    never = crops.draw_crops(50, 64, seed=0, epoch=1, flips="none")
    assert not never.is_flipped_vertically.any()
    assert not never.is_flipped_horizontally.any()


def test_epoch_takes_every_position_once_in_whole_batches():
    first, later = (
        batches.order_epoch(np.arange(100, 123), 5, seed=0, epoch=epoch) for epoch in (1, 2)
    )
    assert [len(batch) for batch in first] == [5] * 4
    assert len(np.unique(np.concatenate(first))) == 20
    assert not np.array_equal(np.concatenate(first), np.concatenate(later))
    (batch,) = batches.order_epoch(np.arange(3), 64, seed=0, epoch=1)  # fewer than a batch make one
    assert sorted(batch) == [0, 1, 2]


@pytest.mark.parametrize("batch_size", [2, 5, 6])
def test_paired_batches_hold_whole_patients(batch_size):
    """40 patients of 1 to 4 pictures; some are held out."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), rng.integers(1, 5, 40))
    eyes = 2 * patients + rng.integers(0, 2, len(patients))
    positions = np.flatnonzero(patients % 7)
    chosen, later = (
        batches.order_pairs(positions, eyes, batch_size, seed=0, epoch=epoch) for epoch in (1, 2)
    )
    taken = np.concatenate(chosen)
    assert len(np.unique(taken)) == len(taken) > 0.9 * len(positions)
    for batch in chosen:
        assert 2 <= len(batch) < batch_size + 4
        assert sorted(batch) == [row for row in positions if patients[row] in set(patients[batch])]
    assert not np.array_equal(taken, np.concatenate(later)[: len(taken)])
    assert [len(batch) for batch in batches.order_pairs(np.arange(20), np.arange(20), 6, 0, 1)] == [
        6,
        6,
        6,
    ]


@pytest.fixture
def cached(tmp_path):
    """Five squares as PNG, and their pixels: (5, 12, 12, 3) RGB."""
    pixels = np.random.default_rng(1).integers(0, 256, (5, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    paths = {f"{patient}_left": tmp_path / f"{patient}_left.png" for patient in range(5)}
    for path, square in zip(paths.values(), pixels, strict=True):
        cv2.imwrite(str(path), square[:, :, ::-1])
    owners = [Subject(str(patient), "left") for patient in range(5)]
    return CachedSquares(
        paths, owners, keep_values(5), Making("whole", SIZE_PX, "none"), {"resize train": "one"}
    ), pixels


def load(cached, storage, tmp_path):
    file = tmp_path / "pixels" / "train.npy"
    return store.load(cached, [120.0] * 3, [50.0] * 3, torch.device("cpu"), storage, file)


def read(squares):
    """Return all pixels of squares, wherever they lie, (n, size_px, size_px, 3)."""
    return np.stack(list(read_rows(squares.pixels, range(len(squares)))))


def test_file_is_shared_by_folds_and_used_again_until_its_squares_change(cached, tmp_path):
    squares, expected = cached
    every = [0, 1, 2, 3, 4]
    two_folds = [("other", [0, 1]), ("other", [3, 1])]  # of a cache
    times = []
    for digest, rows in [("one", every), ("one", every), ("other", every), *two_folds]:
        chosen = squares._replace(digests={"resize train": digest}).select(np.array(rows))
        np.testing.assert_array_equal(read(load(chosen, "file", tmp_path)), expected[rows])
        times.append((tmp_path / "pixels" / "train.npy").stat().st_mtime_ns)
    assert times[0] == times[1] != times[2] == times[3] == times[4]
    assert sorted(path.name for path in (tmp_path / "pixels").iterdir()) == [
        "train.json",
        "train.npy",
    ]


def test_file_depends_on_the_lookup_tables_only_where_the_pixels_have_them(cached, tmp_path):
    squares, _ = cached
    file = tmp_path / "pixels" / "train.npy"
    written = []
    for method, digest in [
        ("none", "a"),
        ("cdf", "b"),
        ("local", "b"),
        ("local", "c"),
        ("cdf", "b"),
    ]:
        digests = {"resize train": "one", "normalize train": digest}
        making = squares.making._replace(normalize=method)
        load(squares._replace(digests=digests, making=making), "file", tmp_path)
        written.append(file.stat().st_mtime_ns)
    first, second, third, fourth, fifth = written
    assert first == second
    assert len({second, third, fourth, fifth}) == 4


def test_file_of_before_files_were_shared_is_used_on(cached, tmp_path):
    squares, expected = cached
    digests = {"resize train": "one", "normalize train": "two"}
    squares = squares._replace(digests=digests)
    file = tmp_path / "pixels" / "train.npy"
    load(squares, "file", tmp_path)
    written = file.stat().st_mtime_ns
    old = str([squares.images, *sorted(digests.items())])
    file.with_suffix(".json").write_text(json.dumps(old))
    fold = squares.select(np.array([4, 2]))._replace(digests=digests | {"labels": "three"})
    np.testing.assert_array_equal(read(load(fold, "file", tmp_path)), expected[[4, 2]])
    assert file.stat().st_mtime_ns == written
    load(squares._replace(digests=digests | {"normalize train": "other"}), "file", tmp_path)
    assert file.stat().st_mtime_ns != written


def test_a_remade_file_does_not_stand_beside_the_old_one(cached, tmp_path, monkeypatch):
    squares, _ = cached
    folder = tmp_path / "pixels"
    load(squares, "file", tmp_path)
    seen = []
    write = store._write_pixels

    def look(*given):
        seen.append([path.name for path in folder.iterdir()])
        write(*given)

    monkeypatch.setattr(store, "_write_pixels", look)
    load(squares._replace(digests={"resize train": "other"}), "file", tmp_path)
    assert seen == [[]]


@pytest.mark.parametrize("method", ["cdf", "local"])
def test_squares_are_decoded_for_each_batch_as_they_would_lie_in_memory(cached, tmp_path, method):
    squares = cached[0]._replace(making=cached[0].making._replace(normalize=method))
    in_memory = load(squares, "memory", tmp_path)
    decoded = load(squares, "squares", tmp_path)
    assert decoded.size_px == in_memory.size_px
    chosen = np.array([3, 0, 3])
    for options in ({}, TURNED):
        cuts = crops.draw_crops(5, MARGIN_PX, 0, 1, **options)
        batch = crops.cut_batch(decoded, chosen, cuts, CROP_PX)
        assert torch.equal(batch, crops.cut_batch(in_memory, chosen, cuts, CROP_PX))
    assert not (tmp_path / "pixels").exists()
    squares.paths["1_left"].write_bytes(b"torn")
    with pytest.raises(InputError, match="1_left.png"):
        crops.cut_batch(decoded, np.array([1]), cuts, CROP_PX)


def test_what_does_not_fit_the_memory_is_decoded_or_refused_in_one_line(
    cached, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(resources, "read_free_memory", lambda: 1000)
    assert isinstance(load(cached[0], "auto", tmp_path).pixels, DecodedPixels)
    assert "do not fit into the memory" in capsys.readouterr().out
    with pytest.raises(InputError, match="--storage memory: .* of memory free; with --storage"):
        load(cached[0], "memory", tmp_path)
    gpu = torch.device("mps")
    assert store.choose_storage(2000, gpu, tmp_path / "train.npy") == "file"
    monkeypatch.setattr(files, "measure_free_space", lambda _: 1000)
    assert store.choose_storage(2000, gpu, tmp_path / "train.npy") == "squares"


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_grey_squares_are_kept_once_and_cut_as_three_equal_channels(
    cached, tmp_path, storage, capsys
):
    squares, pixels = cached
    pixels[:] = pixels[..., :1]
    for n_grey in (4, 5):  # one that is coloured is enough for three
        for path, picture in zip(list(squares.paths.values())[:n_grey], pixels, strict=False):
            cv2.imwrite(str(path), picture)
        loaded = load(squares._replace(digests={"resize train": str(n_grey)}), storage, tmp_path)
        assert loaded.pixels.shape[3] == (1 if n_grey == 5 else 3)
    assert ("GB of pixels to write" in capsys.readouterr().out) == (storage == "file")
    whole = Squares(
        loaded.eyes, pixels, loaded.tables * np.float32([1, 2, 3])
    )  # a scale per channel
    for options in ({}, TURNED):
        cuts = crops.draw_crops(5, MARGIN_PX, 0, 1, **options)
        expected = crops.cut_batch(whole, np.arange(5), cuts, CROP_PX)
        for kept in (loaded.pixels, torch.from_numpy(np.array(loaded.pixels))):
            batch = crops.cut_batch(
                Squares(loaded.eyes, kept, whole.tables), np.arange(5), cuts, CROP_PX
            )
            tolerance = (
                3 * 3 / 50 if options else 1e-6
            )  # a turned pixel is rounded differently on the device
            torch.testing.assert_close(batch, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "fault", [None, b"no picture", (SIZE_PX, SIZE_PX + 1), (SIZE_PX + 1, SIZE_PX + 1)], ids=str
)
def test_bad_square_is_named(cached, tmp_path, fault):
    path = cached[0].paths["3_left"]
    path.unlink()
    if isinstance(fault, bytes):
        path.write_bytes(fault)
    elif fault:
        cv2.imwrite(str(path), np.zeros(fault))
    with pytest.raises(InputError, match="3_left.png"):
        load(cached[0], "memory", tmp_path)


def test_label_without_image_image_without_label_and_eyes_found_anew_are_named(tmp_path):
    data = tmp_path / "data"
    cache = tmp_path / "cache"
    folders = tiny.draw_squares(data, cache)
    labels = data / "trainLabels.csv"
    text = labels.read_text()
    for wrong_text, image in (
        (text.replace("3_left,3\n", ""), "3_left"),
        (text + "99_left,0\n", "99_left"),
    ):
        labels.write_text(wrong_text)
        with pytest.raises(InputError, match=image):
            read_training_set(data, cache)
    labels.write_text(text)
    assert len(read_training_set(data, cache).targets) == 24
    cv2.imwrite(str(data / "train" / "3_left.png"), np.zeros((SIZE_PX, 3 * SIZE_PX, 3), np.uint8))
    for method in (
        "box",
        "whole",
    ):  # all eyes are found differently, or one is, after the squares were cut
        with contextlib.suppress(InputError):  # the black one is rejected
            crop.main([*folders, f"--method={method}", "--jobs=1"])
        with pytest.raises(
            InputError, match="crop train changed.*run python -m preprocess.resize again"
        ):
            read_training_set(data, cache)
