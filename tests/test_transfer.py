"""The recipes of the articles on OCT, from weights of the right shape to predictions, on small drawn scans."""

import numpy as np
import pandas as pd
import pytest
import torch

from dr import predict, train
from dr.training import checkpoint
from preprocess import __main__ as preprocess
from tests.tiny import digest_files

timm = pytest.importorskip("timm")
LEAST_PX = {"inception": 75, "vgg16": 32, "xception": 32}  # that the nets take
HALF, FIRST = [127.5] * 3, [255 * share for share in (0.485, 0.456, 0.406)]
MEANS = {"inception": HALF, "vgg16": FIRST, "xception": HALF}


@pytest.fixture(scope="module", params=LEAST_PX)
def drawn(request, tmp_path_factory):
    """A net of the articles: its name, and the file of its drawn weights, without its classifier."""
    name = {"inception": "inception_v3", "xception": "legacy_xception"}.get(
        request.param, request.param
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = timm.create_model(name).state_dict()
    tensors = {
        key: torch.randn(part.shape) * (2 / part[0].numel()) ** 0.5
        if part.ndim > 1
        else 1 + torch.rand(part.shape)
        for key, part in shapes.items()
        if part.ndim and not key.startswith(("pre_logits", "head", "fc"))
    }
    path = tmp_path_factory.mktemp(request.param) / "weights.pth"
    torch.save(tensors, path)
    return request.param, path


def test_recipes_train_the_head_and_then_all_and_go_on_where_they_stopped(
    drawn, drawn_scans, tmp_path
):
    """The body is the file's as long as the head learns, its BatchNorm too; the rates are those published."""
    name, path = drawn
    given, is_thawed = torch.load(path), name != "inception"
    options = f"--weights {path} --crop-px {LEAST_PX[name]} --freeze-epochs {1 if is_thawed else 2} --epochs 2".split()
    options += "--batch-size 10 --folds 4 --device cpu --precision float32".split()
    for chosen in [
        f"oct-{name}",
        *["oct-inception-as-published", "oct-inception-features"] * (not is_thawed),
    ]:
        places = [f"--recipe={chosen}", f"--data={drawn_scans}", f"--cache={tmp_path / chosen}"]
        preprocess.main([*places, f"--size-px={LEAST_PX[name]}", "--jobs=1"])
        train.main([*places, *options])
        folder = tmp_path / chosen / "dr"
        first, second = (checkpoint.read(folder / "epochs" / f"000{epoch}.pt") for epoch in (1, 2))
        for kept, is_given in ((first, True), (second, not is_thawed)):
            own = {key.removeprefix("body.model."): part for key, part in kept.net.items()}
            assert all(torch.equal(own[key], part) for key, part in given.items()) == is_given
        assert first.mean == ([0.0] * 3 if "published" in chosen else pytest.approx(MEANS[name]))
        rates = pd.read_csv(folder / "epochs" / "history.csv")["learning_rate"].tolist()
        assert rates == [1e-3, 1e-5 if is_thawed else 1e-3]
        predict.main([*places, "--device=cpu"])
        scores = pd.read_csv(folder / "scores_test.csv", index_col=0)
        assert np.isfinite(scores.to_numpy()).all() and list(scores) == [
            "CNV",
            "DME",
            "DRUSEN",
            "NORMAL",
        ]
    whole = digest_files(folder)
    (folder / "epochs" / "0002.pt").write_bytes(b"half")
    train.main([*places, *options])
    assert digest_files(folder) == whole
