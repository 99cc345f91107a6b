"""Batches: crops, flips and lookup tables, and that they are the same however they are made."""

import cv2
import numpy as np
import pytest
import torch
from scipy import stats

from dr import dataset, draws
from dr.dataset import Photographs
from preprocess.stage import InputError

SIZE_PX, CROP_PX, N = 12, 8, 9
CPU = torch.device("cpu")


@pytest.fixture
def photographs():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    luts = rng.integers(0, 256, (N, 3, 256), dtype=np.uint8)
    images = [f"{patient}_left" for patient in range(N)]
    return dataset.make_photographs(images, pixels, luts, np.array([120.0, 90, 60]), np.array([50.0, 40, 30]))


@pytest.fixture
def folder(tmp_path):
    """Five squares as PNG, and what is in them: image id -> path, (5, 12, 12, 3) RGB."""
    pixels = np.random.default_rng(1).integers(0, 256, (5, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    paths = {f"{patient}_left": tmp_path / f"{patient}_left.png" for patient in range(5)}
    for path, square in zip(paths.values(), pixels, strict=True):
        cv2.imwrite(str(path), square[:, :, ::-1])
    return paths, pixels


def on_device(photographs):
    """The same photographs the way a GPU has them."""
    pixels, tables = torch.from_numpy(photographs.pixels), torch.from_numpy(photographs.tables)
    return Photographs(photographs.images, photographs.eyes, pixels, tables)


def test_table_is_lut_then_standardization():
    luts = np.random.default_rng(0).integers(0, 256, (2, 3, 256), dtype=np.uint8)
    mean, std = np.array([100.0, 110, 120]), np.array([10.0, 20, 30])
    tables = dataset.compose_tables(luts, mean, std)
    assert tables.dtype == np.float32
    assert tables[1, 7, 2] == pytest.approx((float(luts[1, 2, 7]) - 120) / 30, rel=1e-6)
    assert tables[0, 255, 0] == pytest.approx((float(luts[0, 0, 255]) - 100) / 10, rel=1e-6)


def test_crop_flip_and_table_agree_with_plain_indexing(photographs):
    crops = dataset.draw_crops(N, SIZE_PX - CROP_PX, seed=3, epoch=1)
    assert 0 < crops.is_flipped_vertically.sum() < N
    batch = dataset.cut_batch(photographs, np.arange(N), crops, CROP_PX).numpy()
    for position in range(N):
        top, left = crops.top[position], crops.left[position]
        square = photographs.pixels[position][top : top + CROP_PX, left : left + CROP_PX]
        square = square[::-1] if crops.is_flipped_vertically[position] else square
        square = square[:, ::-1] if crops.is_flipped_horizontally[position] else square
        for channel in range(3):
            expected = photographs.tables[position][:, channel][square[:, :, channel]]
            np.testing.assert_array_equal(batch[position, channel], expected)


def test_device_cuts_the_same_bytes_as_host(photographs):
    crops = dataset.draw_crops(N, SIZE_PX - CROP_PX, seed=3, epoch=2)
    positions = np.array([5, 0, 5, 8])
    host = dataset.cut_batch(photographs, positions, crops, CROP_PX)
    device = dataset.cut_batch(on_device(photographs), positions, crops, CROP_PX)
    assert torch.equal(host, device)
    assert host.is_contiguous(memory_format=torch.channels_last)
    assert device.is_contiguous(memory_format=torch.channels_last)


def draw_smooth_photographs():
    """Squares of 64 px that are ramps, two grey levels a px: channel 0 tells x, channel 1 tells y."""
    y, x = np.mgrid[:64, :64] * 2
    pixels = np.repeat(np.stack([x, y, (x + y) // 2], axis=2)[None].astype(np.uint8), 6, axis=0)
    luts = np.broadcast_to(np.arange(256, dtype=np.uint8), (6, 3, 256))
    return dataset.make_photographs([f"{patient}_left" for patient in range(6)], pixels, luts, np.zeros(3), np.ones(3))


def test_turned_crop_shows_what_lies_at_the_turned_places():
    """On ramps a pixel tells the place that it came from."""
    photographs = draw_smooth_photographs()
    crops = dataset.draw_crops(6, 24, seed=0, epoch=1, rotation_deg=20, zoom=1.1)
    batch = dataset.cut_batch(photographs, np.arange(6), crops, 40).numpy()
    offset = np.arange(40) - 19.5
    for row in range(6):
        dy, dx = np.meshgrid(offset, offset, indexing="ij")
        dy = -dy if crops.is_flipped_vertically[row] else dy
        dx = -dx if crops.is_flipped_horizontally[row] else dx
        cosine, sine = np.cos(crops.angle[row]), np.sin(crops.angle[row])
        x = crops.left[row] + 19.5 + (cosine * dx - sine * dy) / crops.zoom[row]
        y = crops.top[row] + 19.5 + (sine * dx + cosine * dy) / crops.zoom[row]
        is_inside = (x > 0) & (x < 63) & (y > 0) & (y < 63)
        assert is_inside.mean() > 0.8
        assert np.abs(batch[row, 0] - 2 * x)[is_inside].max() <= 0.6  # rounding
        assert np.abs(batch[row, 1] - 2 * y)[is_inside].max() <= 0.6


def test_device_turns_as_the_host_does():
    """Within a grey level: interpolation rounds."""
    photographs = draw_smooth_photographs()
    crops = dataset.draw_crops(6, 24, seed=3, epoch=2, rotation_deg=180, zoom=1.3)
    positions = np.array([5, 0, 5, 3])
    host = dataset.cut_batch(photographs, positions, crops, 40)
    device = dataset.cut_batch(on_device(photographs), positions, crops, 40)
    assert (host - device).abs().max() <= 1
    assert (host - device).abs().mean() < 0.05


def test_angles_and_zooms_are_uniform_within_their_bounds():
    crops = dataset.draw_crops(100_000, 64, seed=0, epoch=1, rotation_deg=90, zoom=1.2)
    assert stats.kstest(crops.angle, stats.uniform(-np.pi / 2, np.pi).cdf).pvalue > 0.001
    assert stats.kstest(np.log(crops.zoom) / np.log(1.2), stats.uniform(-1, 2).cdf).pvalue > 0.001
    plain = dataset.draw_crops(100_000, 64, seed=0, epoch=1)
    assert not plain.angle.any()
    assert (plain.zoom == 1).all()
    np.testing.assert_array_equal(plain.top, crops.top)


def test_colours_are_stretched_and_shifted_per_channel(photographs):
    """On the standardized values, the same on host and device; and evenly within the bounds."""
    margin_px = SIZE_PX - CROP_PX
    plain, changed = (dataset.draw_crops(N, margin_px, seed=3, epoch=1, jitter=jitter) for jitter in (0, 0.3))
    before, after = (dataset.cut_batch(photographs, np.arange(N), crops, CROP_PX) for crops in (plain, changed))
    expected = before.numpy() * changed.gain[:, :, None, None] + changed.shift[:, :, None, None]
    np.testing.assert_allclose(after.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(after, dataset.cut_batch(on_device(photographs), np.arange(N), changed, CROP_PX))
    many = dataset.draw_crops(50_000, 64, seed=0, epoch=1, jitter=0.3)
    for draws_of in (np.log(many.gain) / np.log(1.3), many.shift / 0.3):
        assert stats.kstest(draws_of.ravel(), stats.uniform(-1, 2).cdf).pvalue > 0.001
        assert np.abs(np.corrcoef(draws_of.T)[np.triu_indices(3, 1)]).max() < 0.02  # each channel its own


def test_sample_does_not_depend_on_its_batch(photographs):
    crops = dataset.draw_crops(N, SIZE_PX - CROP_PX, seed=0, epoch=1)
    whole = dataset.cut_batch(photographs, np.arange(N), crops, CROP_PX)
    order = np.random.default_rng(0).permutation(N)
    parts = [dataset.cut_batch(photographs, part, crops, CROP_PX) for part in np.split(order, [2, 3, 7])]
    assert torch.equal(torch.cat(parts), whole[order])


def test_batches_cut_ahead_in_a_thread_are_the_same(photographs):
    crops = dataset.draw_crops(N, SIZE_PX - CROP_PX, seed=0, epoch=1)
    batches = dataset.order_epoch(np.arange(N), 2, seed=0, epoch=1)
    ahead = list(dataset.iterate_batches(photographs, batches, crops, CROP_PX, torch.device("meta")))
    assert [positions.tolist() for positions, _ in ahead] == [positions.tolist() for positions in batches]
    assert ahead[0][1].device.type == "meta"


def test_draws_do_not_depend_on_how_many_positions_there_are():
    few, many = (dataset.draw_crops(n, 64, seed=5, epoch=3) for n in (10, 1000))
    assert len(few) == 8
    for one, other in zip(few, many, strict=True):
        np.testing.assert_array_equal(one, other[:10])


def test_crop_corners_are_uniform_over_all_places():
    """512 - 448 + 1 = 65 places each way; chi-squared over all 4,225 of them, and over each side."""
    crops = dataset.draw_crops(200_000, 512 - 448, seed=0, epoch=1)
    counts = np.bincount(crops.top * 65 + crops.left, minlength=65**2)
    assert len(counts) == 65**2
    assert stats.chisquare(counts).pvalue > 0.001
    for corner in (crops.top, crops.left):
        assert stats.chisquare(np.bincount(corner, minlength=65)).pvalue > 0.001


def test_flips_are_independent_fair_coins():
    crops = dataset.draw_crops(200_000, 64, seed=0, epoch=1)
    low = crops.top < 32
    code = crops.is_flipped_vertically * 4 + crops.is_flipped_horizontally * 2 + low
    share = np.bincount(code, minlength=8).reshape(2, 2, 2) / len(code)
    expected = np.broadcast_to([33 / 65 / 4, 32 / 65 / 4], (2, 2, 2))
    np.testing.assert_allclose(share, expected, atol=0.004)  # 5 standard deviations


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 2}, {"stream": draws.VIEWS}])
def test_seed_epoch_and_stream_change_the_draws(change):
    plain = {"seed": 0, "epoch": 1, "stream": draws.CROPS}
    one = dataset.draw_crops(2000, 64, **plain)
    other = dataset.draw_crops(2000, 64, **plain | change)
    assert abs(np.corrcoef(one.top, other.top)[0, 1]) < 0.1
    assert abs(np.corrcoef(one.is_flipped_vertically, other.is_flipped_vertically)[0, 1]) < 0.1


def test_no_margin_leaves_one_place():
    crops = dataset.draw_crops(50, 0, seed=0, epoch=1)
    assert not crops.top.any() and not crops.left.any()


def test_center_crop_is_in_the_middle():
    crops = dataset.center_crops(2, 64)
    assert crops.top.tolist() == crops.left.tolist() == [32, 32]
    assert not crops.is_flipped_vertically.any() and not crops.is_flipped_horizontally.any()


def test_epoch_takes_every_position_once_in_whole_batches():
    batches = dataset.order_epoch(np.arange(100, 123), 5, seed=0, epoch=1)
    assert [len(batch) for batch in batches] == [5] * 4
    assert len(np.unique(np.concatenate(batches))) == 20
    assert not np.array_equal(
        np.concatenate(batches), np.concatenate(dataset.order_epoch(np.arange(100, 123), 5, 0, 2))
    )


def test_fewer_positions_than_a_batch_make_one():
    (batch,) = dataset.order_epoch(np.arange(3), 64, seed=0, epoch=1)
    assert sorted(batch) == [0, 1, 2]


def test_eyes_are_numbered_by_patient_and_side():
    images = ["7_left", "7_right", "10_right", "10_left_b", "8_left"]
    assert dataset.number_eyes(images).tolist() == [0, 1, 3, 2, 4]


@pytest.mark.parametrize("batch_size", [2, 5, 6])
def test_paired_batches_hold_whole_patients(batch_size):
    """40 patients of 1 to 4 pictures; some are held out."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), rng.integers(1, 5, 40))
    eyes = 2 * patients + rng.integers(0, 2, len(patients))
    positions = np.flatnonzero(patients % 7)
    batches = dataset.order_pairs(positions, eyes, batch_size, seed=0, epoch=1)
    taken = np.concatenate(batches)
    assert len(np.unique(taken)) == len(taken) > 0.9 * len(positions)
    assert set(taken) <= set(positions)
    for batch in batches:
        assert 2 <= len(batch) < batch_size + 4
        assert sorted(batch) == [row for row in positions if patients[row] in set(patients[batch])]
    later = np.concatenate(dataset.order_pairs(positions, eyes, batch_size, seed=0, epoch=2))
    assert not np.array_equal(taken, later[: len(taken)])


def test_pairs_fill_batches_exactly():
    batches = dataset.order_pairs(np.arange(20), np.arange(20), 6, seed=0, epoch=1)
    assert [len(batch) for batch in batches] == [6, 6, 6]


@pytest.mark.parametrize("storage", ["memory", "file", "device", "auto"])
def test_squares_are_decoded_as_rgb_wherever_they_lie(folder, tmp_path, storage):
    paths, expected = folder
    pixels = dataset.load_pixels(paths, CPU, storage, tmp_path / "pixels" / "train.npy", "key")
    np.testing.assert_array_equal(pixels, expected)


def test_file_is_used_again_until_its_key_changes(folder, tmp_path):
    paths, expected = folder
    file = tmp_path / "pixels" / "train.npy"
    dataset.load_pixels(paths, CPU, "file", file, "one")
    made = file.stat().st_mtime_ns
    np.testing.assert_array_equal(dataset.load_pixels(paths, CPU, "file", file, "one"), expected)
    assert file.stat().st_mtime_ns == made
    dataset.load_pixels(paths, CPU, "file", file, "other")
    assert file.stat().st_mtime_ns != made


def test_batches_come_from_a_file_as_from_memory(folder, tmp_path):
    paths, pixels = folder
    mapped = dataset.load_pixels(paths, CPU, "file", tmp_path / "pixels" / "train.npy", "key")
    luts = np.broadcast_to(np.arange(256, dtype=np.uint8), (5, 3, 256))
    crops = dataset.draw_crops(5, SIZE_PX - CROP_PX, seed=0, epoch=1)
    batches = []
    for source in (mapped, pixels):
        mean, std = dataset.measure_channels(source, np.arange(5))
        photographs = dataset.make_photographs(list(paths), source, luts, mean, std)
        batches.append(dataset.cut_batch(photographs, np.arange(5), crops, CROP_PX))
    assert torch.equal(*batches)


@pytest.mark.parametrize("fault", ["missing", "text", "oblong", "larger"])
def test_bad_square_is_named(folder, tmp_path, fault):
    paths, _ = folder
    path = paths["3_left"]
    if fault == "missing":
        path.unlink()
    elif fault == "text":
        path.write_text("no picture")
    else:
        shape = (SIZE_PX, SIZE_PX + 1, 3) if fault == "oblong" else (SIZE_PX + 1, SIZE_PX + 1, 3)
        cv2.imwrite(str(path), np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="3_left.png"):
        dataset.load_pixels(paths, CPU, "memory", tmp_path / "train.npy", "key")


def test_channels_are_those_of_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    mean, std = dataset.measure_channels(pixels, np.array([0, 2]))
    np.testing.assert_allclose(mean, pixels[[0, 2]].reshape(-1, 3).mean(axis=0))
    np.testing.assert_allclose(std, pixels[[0, 2]].reshape(-1, 3).std(axis=0))


def test_channel_without_variance_raises():
    with pytest.raises(InputError, match="variance"):
        dataset.measure_channels(np.full((2, 4, 4, 3), 7, np.uint8), np.arange(2))
