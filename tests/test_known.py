"""The same picture under another name, scaled or compressed again, is found; pictures of other eyes are not."""

import cv2
import numpy as np
import pytest

from preprocess import __main__ as preprocess
from preprocess.dataset import readers
from submissions.evaluation import known, thumbnails


@pytest.fixture(scope="module")
def drawn_squares(drawn_folder, tmp_path_factory):
    """Drawn photographs, and a cache with copies of some of them, of half the size and compressed again."""
    place = tmp_path_factory.mktemp("copies")
    dataset = readers.read_dataset(drawn_folder)
    rows = ["image,path,level,split"]
    for number, row in enumerate(dataset.samples.itertuples()):
        bgr = cv2.imread(str(row.path))
        if row.split == "test":
            bgr = cv2.resize(bgr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(place / f"c{number}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 60])
            rows.append(f"c{number},c{number}.jpg,0,train")
        rows.append(f"o{number},{row.path},0,test")
    (place / "samples.csv").write_text("\n".join(rows) + "\n")
    cache = place / "cache"
    preprocess.main([f"--data={place}", f"--cache={cache}", "--size-px=96", "--jobs=1"])
    return cache


def test_copies_are_found_and_other_eyes_are_not(drawn_squares, tmp_path):
    copies = thumbnails.read(drawn_squares, "train", tmp_path, 1)
    originals = thumbnails.read(drawn_squares, "test", tmp_path, 1)
    assert len(copies) == 4 and len(originals) == 12
    pairs = thumbnails.find_alike(thumbnails.normalize(copies), thumbnails.normalize(originals))
    found = {(list(copies)[row], list(originals)[other]) for row, other in pairs}
    assert found == {(image, f"o{image[1:]}") for image in copies}


def test_small_copies_are_kept_and_made_anew_only_of_other_squares(
    drawn_squares, tmp_path, monkeypatch
):
    first = thumbnails.read(drawn_squares, "test", tmp_path, 1)
    monkeypatch.setattr(thumbnails, "shrink", None)
    again = thumbnails.read(drawn_squares, "test", tmp_path, 1)
    for image, copy in first.items():
        np.testing.assert_array_equal(again[image], copy)


def test_the_products_of_rows_are_the_correlations_of_a_slow_loop():
    rng = np.random.default_rng(0)
    copies = {str(n): rng.integers(0, 256, (32, 32)).astype(np.uint8) for n in range(5)}
    copies["flat"] = np.full((32, 32), 7, np.uint8)
    rows = thumbnails.normalize(copies)
    y, x = np.mgrid[:32, :32]
    is_inside = (y - 15.5) ** 2 + (x - 15.5) ** 2 < (0.42 * 32) ** 2
    details = []
    for copy in list(copies.values())[:5]:
        pixels = copy.astype(np.float32)
        details.append((pixels - cv2.GaussianBlur(pixels, (0, 0), 3.0))[is_inside])
    np.testing.assert_allclose((rows @ rows.T)[:5, :5], np.corrcoef(details), atol=1e-5)
    assert not rows[5].any()
    assert list(thumbnails.find_alike(rows, rows)) == [(n, n) for n in range(5)]


def test_pictures_that_come_twice_are_pairs_and_named_with_their_targets(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 32, 32)).astype(np.uint8)
    copies = {"a": one, "b": other, "c": one, "d": other}
    monkeypatch.setattr(thumbnails, "read", lambda *_: copies)
    pairs = known.find_repeated(tmp_path, [*"abcd"], tmp_path, 1)
    assert pairs == [("a", "c"), ("b", "d")]
    text = known.describe_repeated(pairs, {pairs[0]: False, pairs[1]: True}, 5)
    assert text.startswith("2 pairs of images show the same picture, 1 of them with different")
    assert text.count("b and d") == 1 and "a and c" in text


def test_pairs_of_real_photographs_are_found_and_no_others(real_data, tmp_path):
    """Five pairs of IDRiD are one picture twice; here they are among 15 others."""
    twice = {("021", "391"), ("028", "327"), ("045", "333"), ("073", "375"), ("079", "279")}
    names = {name for pair in twice for name in pair}
    names |= {f"{number:03}" for number in range(1, 16)}
    folder = real_data / "idrid-grading"
    rows = ["image,path,level,split"]
    for name in sorted(names):
        (path,) = folder.rglob(f"IDRiD_{name}.jpg")
        rows.append(f"{name},{path},0,test")
    rows.append(f"other,{path},0,train")
    (tmp_path / "samples.csv").write_text("\n".join(rows) + "\n")
    cache = tmp_path / "cache"
    preprocess.main([f"--data={tmp_path}", f"--cache={cache}", "--size-px=128", "--jobs=1"])
    assert set(known.find_repeated(cache, sorted(names), tmp_path, 1)) == twice


def test_a_copy_of_a_training_picture_is_known_and_said_to_be_a_copy(drawn_squares, tmp_path):
    found = known.find_known([drawn_squares], [drawn_squares], tmp_path, 1)
    assert len(found.images) == 4 and sorted(found.near) == sorted(found.images)
    for image, own_name in found.images.items():
        assert image[1:] == own_name[1:]
    text = known.describe_known(found, 12, False, 5)
    assert text.startswith("4 of 12 images are of the run's training set (")
    assert "4 of them scaled or compressed again (o" in text and "--drop-known" in text
