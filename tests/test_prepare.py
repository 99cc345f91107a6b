"""Raw photographs in memory: the same pixels and scores as by the pipeline's stages; what is no eye is refused."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from tqdm import tqdm

from dr import checkpoint, contrast, dataset, inputs, passes, prepare
from dr.scores import read_scores
from preprocess import crop, eyes, normalize
from preprocess.stage import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def content(finished_cache):
    """The last checkpoint of the finished cache."""
    return checkpoint.read(finished_cache / "dr" / "epochs" / "0002.pt")


@pytest.fixture
def paths(drawn_folder):
    """The test photographs."""
    return eyes.list_images(drawn_folder, "test")[0]


def test_checkpoint_keeps_how_the_squares_were_made(content):
    assert (content["size_px"], content["crop_method"], content["settings"]["crop_px"]) == (48, "adaptive", 32)


def test_pixels_and_tables_are_those_of_the_stages(finished_cache, content, paths):
    images, luts = normalize.read_tables(finished_cache, "test")
    rows = crop.read_crops(finished_cache, "test")
    for image, lut in zip(images, luts, strict=True):
        square = prepare.prepare(paths[image], content)
        kept = cv2.imread(str(finished_cache / "resize" / "test" / f"{image}.png"))[..., ::-1]
        np.testing.assert_array_equal(square.pixels, kept)
        np.testing.assert_array_equal(square.lut, lut)
        row = rows[image]
        assert crop.make_row(row["width"], row["height"], square.disc) == row
        assert square.is_found


def test_scores_of_the_middle_are_those_of_the_first_view(finished_cache, content, paths):
    single = read_scores(finished_cache / "dr" / "single_test.csv")
    squares = [prepare.prepare(paths[image], content) for image in single.index]
    photographs = prepare.gather(list(single.index), squares, content)
    net = checkpoint.make_net(content).eval()
    with tqdm(disable=True) as bar:
        scores = passes.score(
            net,
            photographs,
            np.arange(len(squares)),
            dataset.center_crops(len(squares), 16),
            content["settings"]["precision"],
            len(squares),
            bar,
        )
    np.testing.assert_allclose(scores, single.to_numpy(), atol=1e-6)
    middle = prepare.cut_centers(photographs, 32)
    table = photographs.tables[0]
    expected = np.stack([table[squares[0].pixels[8:40, 8:40, channel], channel] for channel in range(3)])
    np.testing.assert_array_equal(middle[0].numpy(), expected)


def test_the_found_eye_is_cut_by_the_method_the_net_was_trained_with(content, paths):
    path = next(iter(paths.values()))
    box = prepare.prepare(path, content | {"crop_method": "box"})
    assert box.disc.confidence == 1
    assert np.abs(box.pixels.astype(int) - prepare.prepare(path, content).pixels).max() > 0


def test_net_of_local_contrast_is_given_local_contrast(content, paths):
    path = next(iter(paths.values()))
    plain = prepare.prepare(path, content)
    local = prepare.prepare(path, content | {"settings": content["settings"] | {"local_contrast": True}})
    np.testing.assert_array_equal(local.pixels, contrast.finish(plain.pixels, plain.lut))
    np.testing.assert_array_equal(local.lut, inputs.keep_values(1)[0])


# --- ready-made squares -----------------------------------------------------------------------------------------------


@pytest.fixture
def ready_made(content):
    return content | {"size_px": 40, "crop_method": None}


@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_ready_made_square_is_taken_as_training_took_it(ready_made, tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    path = tmp_path / f"1_left.{suffix}"
    cv2.imwrite(str(path), pixels)
    square = prepare.prepare(path, ready_made)
    kept = dataset.load_pixels({"1_left": path}, torch.device("cpu"), "memory", tmp_path / "unused.npy", "")
    np.testing.assert_array_equal(square.pixels, kept[0])
    np.testing.assert_array_equal(square.lut, inputs.keep_values(1)[0])
    assert not square.is_found
    assert (square.disc.center_x, square.disc.semi_axis_y) == (19.5, 20)


def test_square_of_another_size_is_refused(ready_made, paths):
    with pytest.raises(prepare.Refused, match=r"400 x \d+ pixels; the net was trained on ready-made squares of 40"):
        prepare.prepare(next(iter(paths.values())), ready_made)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "neither a JPEG nor a PNG"),
        ("empty", "the file is empty"),
        ("truncated", "truncated JPEG"),
        ("black", "one flat colour"),
        ("missing", "no such file"),
        ("folder", "a folder"),
    ],
)
def test_what_is_no_fundus_is_refused_with_the_reason(content, paths, tmp_path, kind, reason):
    path = tmp_path / "1_left.jpeg"
    whole = next(iter(paths.values())).read_bytes()
    contents = {"text": b"hello", "empty": b"", "truncated": whole[: len(whole) // 2]}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "black":
        cv2.imwrite(str(path), np.zeros((300, 400, 3), np.uint8))
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(prepare.Refused, match=reason):
        prepare.prepare(path, content)


def test_photograph_that_does_not_end_in_a_suffix_is_read_by_its_content(content, paths, tmp_path):
    path = shutil.copy(next(iter(paths.values())), tmp_path / "left eye")
    assert prepare.prepare(path, content).is_found


def test_refused_photographs_are_an_error_in_the_end():
    prepare.report_refused({}, 3)
    with pytest.raises(InputError, match=r"^2 photographs are refused \(a: empty\); 3 done$"):
        prepare.report_refused({"a": "empty", "b": "black"}, 3)
    with pytest.raises(InputError, match=r"^1 photograph is refused \(a: empty\)$"):
        prepare.report_refused({"a": "empty"}, 0)
