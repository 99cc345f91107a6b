"""One road from photograph to scores: what dr.predict says of the cache's squares, grade and explain say of the files.

For every recipe, way to find the eye, and kind of net. Nets of local contrast once were given it twice by the two.
"""

import json

import numpy as np
import pytest
import torch

from dr import explain, predict, train
from dr.nets import heat
from dr.scores import read_scores
from dr.squares import crops, source, store
from dr.training import checkpoint
from preprocess import __main__ as preprocess
from preprocess.recipes import recipe
from preprocess.samples.retina import RETINA, TASK
from submissions import grade

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"nine-conv": [], "resnet50": "--net test_resnet --weights none".split()}  # for the net of a recipe
SIZES = "--epochs 1 --batch-size 2 --folds 2 --crop-px 48 --device cpu --precision float32".split()
LOCAL = "few-photographs"
ROADS = [
    *([f"--recipe={name}"] for name in recipe.list_names()),
    *([f"--recipe={LOCAL}", "--crop", method] for method in ("box", "whole")),
    ["--normalize", "none"],
]


@pytest.fixture(params=ROADS, ids=" ".join)
def road(request, drawn_folder, cache):
    """The options of a recipe, and those of a tiny net; the drawn folder has been preprocessed by them."""
    preprocess.main([*request.param, f"--data={drawn_folder}", f"--cache={cache}", *"--size-px 64 --jobs 1".split()])
    is_named = request.param[0].startswith("--recipe")
    chain = recipe.read_chain(request.param[0].removeprefix("--recipe=") if is_named else recipe.BASE)
    nets = [part.sections["dr.train"]["net"] for part in chain if "net" in part.sections.get("dr.train", {})]
    if tiny := TINY[nets[-1]]:
        pytest.importorskip("timm")
    return request.param[:is_named], tiny


@pytest.mark.parametrize("kind", [[], ["--pairs"]], ids=["single", "pairs"])
def test_grade_and_explain_are_given_what_predict_scored(
    road, drawn_folder, cache, kind, tmp_path, monkeypatch, capsys
):
    options, tiny = road
    places = [*options, f"--data={drawn_folder}", f"--cache={cache}"]
    train.main([*places, *SIZES, *tiny, *kind])
    predict.main([*places, *"--views 3 --device cpu".split()])
    scores = read_scores(cache / "dr" / "scores_test.csv", TASK)
    epoch = cache / "dr" / "epochs" / "0001.pt"

    capsys.readouterr()
    grade.main([f"{drawn_folder}/test", *f"--checkpoint {epoch} --views 3 --device cpu --json".split()])
    eyes = json.loads(capsys.readouterr().out)["eyes"]
    graded = {f"{eye['patient']}_{eye['side']}": eye["scores"] for eye in eyes}
    np.testing.assert_allclose([graded[image] for image in scores.index], scores, rtol=0, atol=1e-5)

    of, squares = checkpoint.read(epoch), source.read_squares(cache, "test", RETINA)
    loaded = store.load(squares, of.mean, of.std, torch.device("cpu"), "memory", tmp_path / "unused.npy")
    photographs = RETINA.list_images(drawn_folder, "test").paths.values()
    seen, own = [], heat.map_heat
    monkeypatch.setattr(heat, "map_heat", lambda net, images, *more: seen.append(images) or own(net, images, *more))
    explain.main([*map(str, photographs), f"--cache={cache}", f"--out={tmp_path}", "--device=cpu"])
    assert torch.equal(torch.cat(seen), crops.cut_centers(loaded, 48))
