"""One road from photograph to scores: what dr.predict says of the cache's squares, grade, explain and the page say of
the files, and an exported net of their squares.

For every recipe, way to find the eye, and kind of net; of recipes that differ in nothing that a photograph meets on its
way to the scores, for one. Nets of local contrast once were given it twice by the two.
"""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dr import explain, export, predict, train
from dr.nets import heat
from dr.nets.catalog import NINE_CONV
from dr.scores import read_scores
from dr.squares import crops, source, store
from dr.tasks.kinds import make_task
from dr.training import checkpoint, runs
from preprocess import __main__ as preprocess
from preprocess.command import recipe
from preprocess.dataset import readers
from preprocess.picture import square
from submissions import ensemble, grade, page

# Options of a net of timm, which is a tiny one of its kind.
TINY = "--weights none --features none --epochs 2 --freeze-epochs 1 --warm-up-epochs 0 --accumulate 1".split()
DRAWN = {"oct": "drawn_scans", "chest": "drawn_chest"}  # by what a recipe's name holds
SIZES = "--epochs 1 --batch-size 2 --folds 2 --crop-px 48 --device cpu --precision float32".split()
LOCAL = "few-photographs"
# Beside the kind of net, what a photograph's way to its scores depends on; the other settings decide the weights alone.
PIXELS = ("preprocess.crop", "preprocess.normalize")  # whole sections of a recipe, and of dr.train:
SETTINGS = ("inputs", "mean", "std", "flips", "pool", "squeeze", "hidden", "pairs")


def read_values(name):
    """Return the values of a recipe, by section, those that it is based on among them."""
    values = {}
    for part in recipe.read_chain(name):
        for section, own in part.sections.items():
            values.setdefault(section, {}).update(own)
    return values


def find_kind_of_net(values):
    """Return whether a recipe has the article's net, a plain transformer, or another net of timm."""
    name = values["dr.train"]["net"]
    if name == NINE_CONV:
        return NINE_CONV
    if name.startswith("vit_"):
        return "test_vit"
    return "test_resnet"


def find_kind_of_data(name):
    """Return the kind of the drawn folder that a recipe is for; "" for eyes."""
    return next((kind for kind in DRAWN if kind in name), "")


def list_roads():
    """Return a recipe of each way from photograph to scores, the first by name of those that have the same way."""
    roads = {}
    for name in recipe.list_names():
        values = read_values(name)
        pixels = [values.get(section) for section in PIXELS]
        settings = [values["dr.train"].get(setting) for setting in SETTINGS]
        way = str([find_kind_of_net(values), find_kind_of_data(name), pixels, settings])
        roads.setdefault(way, name)
    return list(roads.values())


ROADS = [
    *([f"--recipe={name}"] for name in list_roads()),
    *([f"--recipe={LOCAL}", "--crop", method] for method in ("box", "whole", "stretched")),
    ["--normalize", "none"],
]


@pytest.fixture(params=ROADS, ids=" ".join)
def road(request, cache):
    """The options of a recipe, a drawn folder of its kind, preprocessed by them, and the options of a tiny net."""
    data = request.getfixturevalue(DRAWN.get(find_kind_of_data(request.param[0]), "drawn_folder"))
    preprocess.main(
        [*request.param, f"--data={data}", f"--cache={cache}", *"--size-px 64 --jobs 1".split()]
    )
    is_named = request.param[0].startswith("--recipe")
    name = request.param[0].removeprefix("--recipe=") if is_named else recipe.BASE
    net = find_kind_of_net(read_values(name))
    tiny = []
    if recipe.find_drawn(name):
        tiny = ["--weights", "none"]  # not those of a net that has learned on drawn eyes
    if net != NINE_CONV:
        pytest.importorskip("timm")
        tiny = [*TINY, "--net", net]
    return request.param[:is_named], data, tiny


@pytest.mark.parametrize("kind", [[], ["--pairs"]], ids=["single", "pairs"])
def test_grade_page_explain_and_exported_nets_are_given_what_predict_scored(
    road, cache, kind, tmp_path, monkeypatch, capsys
):
    options, data, tiny = road
    dataset = readers.read_dataset(data)
    task = make_task(dataset.question)
    if kind and not task.has_eyes:
        pytest.skip("only eyes have pairs")
    places = [*options, f"--data={data}", f"--cache={cache}"]
    train.main([*places, *SIZES, *tiny, *kind])
    predict.main([*places, *"--views 3 --epochs-averaged last:1 --device cpu".split()])
    scores = read_scores(cache / "dr" / "scores_test.csv", task)
    photographs = dataset.list_paths("test")
    epoch = max((cache / "dr" / "epochs").glob("*.pt"))

    capsys.readouterr()
    if not task.has_eyes:
        grade.main(
            [
                *map(str, photographs.values()),
                *f"--checkpoint {epoch} --views 3 --device cpu --json".split(),
            ]
        )
        images = json.loads(capsys.readouterr().out)["images"]
        graded = {Path(image["photograph"]).stem: [*image["scores"].values()] for image in images}
    else:
        grade.main([f"{data}/test", *f"--checkpoint {epoch} --views 3 --device cpu --json".split()])
        eyes = json.loads(capsys.readouterr().out)["eyes"]
        graded = {f"{eye['patient']}_{eye['side']}": eye["scores"] for eye in eyes}
    np.testing.assert_allclose([graded[image] for image in scores.index], scores, rtol=0, atol=1e-5)

    monkeypatch.setattr(page, "SHOWN_PX", 64)
    seats = ensemble.load(runs.read_members(cache / "dr", None, None), None, None, "cpu")
    files = [
        (f"{image}{path.suffix}", io.BytesIO(path.read_bytes()))
        for image, path in photographs.items()
    ]
    rows = page.answer(seats, False, {"folder": files})["rows"]
    shown = {Path(row["photograph"]).stem: [row[column] for column in scores] for row in rows}
    np.testing.assert_allclose([shown[image] for image in scores.index], scores, rtol=0, atol=1e-5)

    of, onnxruntime = checkpoint.read(epoch), pytest.importorskip("onnxruntime")
    export.main([f"--cache={cache}", f"--data={data}", f"--out={tmp_path}/net.onnx"])
    made = [square.make_square(path, of.making) for path in photographs.values()]
    given = {"squares": np.stack([cv2.LUT(one.pixels, one.lut.T[None]) for one in made])}
    if of.settings.pairs:
        given["eyes"] = store.number_eyes(dataset.get_subjects(photographs))
    (exported,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, given)
    np.testing.assert_allclose(exported, scores.loc[[*photographs]], rtol=0, atol=1e-5)

    squares = source.read_squares(cache, "test", dataset)
    loaded = store.load(
        squares, of.mean, of.std, torch.device("cpu"), "memory", tmp_path / "unused.npy"
    )
    seen, own = [], heat.map_heat
    monkeypatch.setattr(
        heat, "map_heat", lambda net, images, *more: seen.append(images) or own(net, images, *more)
    )
    explain.main(
        [*map(str, photographs.values()), f"--cache={cache}", f"--out={tmp_path}", "--device=cpu"]
    )
    assert torch.equal(torch.cat(seen), crops.cut_centers(loaded, 48))
