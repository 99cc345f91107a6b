"""The blends: fellows, what is computed, that it learns, does no harm on few patients, leaks nothing, keeps files."""

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blend import mlp, predict, train
from blend import pairs as blending
from blend.pairs import SEED, Pairs, cross_fit, pair_eyes
from dr.metrics.calibration import measure_log_loss
from dr.scores import read_scores, write_scores
from preprocess.cache import manifest
from preprocess.dataset.dataset import Subject
from preprocess.dataset.folds import assign_folds
from preprocess.dataset.kaggle import find_subject
from preprocess.disk.errors import InputError
from tests.tasks import TASK

IMAGES = [f"{patient}_{side}" for patient in range(1, 201) for side in ("left", "right")]
OWNERS = [find_subject(image) for image in IMAGES]
GROUPS = [owner.patient for owner in OWNERS]


def draw_scores(n_images, seed):
    """Return (levels, scores): fellows alike, each image's scores far too sure of what they saw."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.choice(5, n_images // 2, p=[0.5, 0.15, 0.2, 0.1, 0.05]), 2)
    seen = levels + rng.normal(0, 0.8, n_images)
    logits = -3.0 * (seen[:, None] - np.arange(5)) ** 2
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return levels, scores / scores.sum(axis=1, keepdims=True)


LEVELS, SCORES = draw_scores(len(IMAGES), seed=0)
PAIRS = pair_eyes(OWNERS, SCORES)


SEVERAL = [
    "1_left",
    "1_right",
    "2_right",
    "10_left",
    "10_left_b",
    "10_right",
    "11_left",
    "11_left_b",
]
DRAWN = np.random.default_rng(0).dirichlet(np.ones(5), len(SEVERAL))


def pair_rows(rows):
    return pair_eyes([find_subject(SEVERAL[row]) for row in rows], DRAWN[rows]).fellow


FELLOWS = pair_rows(range(len(SEVERAL)))


def test_the_fellow_is_the_mean_of_the_other_side_or_the_eye_itself():
    others = (
        [1],
        [0],
        [2],
        [5],
        [5],
        [3, 4],
        [6],
        [7],
    )  # a second picture of the same eye is no fellow
    for fellow, rows in zip(FELLOWS, others, strict=True):
        assert fellow == pytest.approx(DRAWN[rows].mean(axis=0))
    assert (
        pair_eyes([Subject("1"), Subject("1")], DRAWN[:2]).fellow == DRAWN[:2]
    ).all()  # of no side


@given(st.permutations(range(len(SEVERAL))))
def test_the_order_of_rows_does_not_matter_nor_an_eye_that_is_removed(order):
    assert (pair_rows(order) == FELLOWS[order]).all()
    kept = [row for row in order if SEVERAL[row] != "1_left"]
    expected = FELLOWS.copy()
    expected[1] = DRAWN[1]  # 1_right has no fellow any more
    assert (pair_rows(kept) == expected[kept]).all()


@pytest.fixture
def files(tmp_path):
    """Scores and labels as explicit files."""
    write_scores(tmp_path / "scores.csv", IMAGES, SCORES, TASK)
    pd.DataFrame({"image": IMAGES, "level": LEVELS}).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


@pytest.fixture
def cached(tmp_path):
    """Options of a folder, data and cache, in which the net's scores are there: 100 patients each."""
    pd.DataFrame({"image": IMAGES[:200], "level": LEVELS[:200]}).to_csv(
        tmp_path / "trainLabels.csv", index=False
    )
    write_scores(tmp_path / "dr" / "scores_valid.csv", IMAGES[:200], SCORES[:200], TASK)
    write_scores(tmp_path / "dr" / "scores_test.csv", IMAGES[200:], SCORES[200:], TASK)
    return [f"--data={tmp_path}", f"--cache={tmp_path}"]


@pytest.fixture
def quick(monkeypatch):
    """Networks that are hardly trained, where only their files matter."""
    monkeypatch.setattr(mlp, "N_EPOCHS", 1)
    monkeypatch.setattr(mlp, "N_SEEDS", 2)


def cross_fit_by(method, levels=LEVELS, n_images=400):
    """Return the scores of the first images, cross-fitted."""
    fit = partial(mlp.fit_predictor, method=method, seed=SEED)
    return cross_fit(PAIRS.select(slice(n_images)), GROUPS[:n_images], levels[:n_images], fit)


def train_on(files, *more):
    """Fit a blend to the explicit files."""
    train.main(
        [
            f"--scores={files}/scores.csv",
            f"--labels={files}/labels.csv",
            f"--out={files}/model.pt",
            *more,
        ]
    )


def predict_by(model, scores):
    """Return the blended scores of an explicit file."""
    out = scores.parent / "blended.csv"
    predict.main([f"--scores={scores}", f"--model={model}", f"--out={out}"])
    return read_scores(out, TASK)


def test_the_fellow_weight_is_the_best_of_a_grid_but_for_the_prior():
    assert blending.blend_linear(Pairs(*np.eye(5)[[0, 2]]), 0.25).tolist() == [0.75, 0, 0.25, 0, 0]
    losses = [
        measure_log_loss(blending.blend_linear(PAIRS, c), LEVELS) for c in np.linspace(0, 1, 1001)
    ]
    best = np.argmin(losses) / 1000
    assert 0.2 < best < 0.6
    assert blending.fit_fellow_weight(PAIRS, LEVELS) == pytest.approx(best * 400 / 450, abs=0.002)
    noise = np.random.default_rng(1).dirichlet(np.ones(5), len(IMAGES))
    assert blending.fit_fellow_weight(Pairs(np.eye(5)[LEVELS] * 0.9 + 0.02, noise), LEVELS) < 0.001


def test_an_untrained_network_has_the_articles_layers_and_is_the_linear_blend():
    pairs = Pairs(
        *np.random.default_rng(0).dirichlet(np.full(5, 5.0), (2, 30))
    )  # none below the logarithms' floor
    net = mlp.make_net(10, 5, torch.Generator().manual_seed(0))
    assert [tuple(net[f"weight{layer}"].shape) for layer in range(3)] == [
        (500, 10),
        (500, 500),
        (5, 500),
    ]
    expected = blending.blend_linear(pairs, 0.3)
    assert mlp.apply_blend(mlp.Blend(0.3, [net]), pairs) == pytest.approx(expected, abs=1e-6)


def test_dropout_keeps_half_of_the_units_and_the_mean():
    net = {"bias0": torch.zeros(10_000), "bias1": torch.ones(10_000), "bias2": torch.zeros(1)}
    weights = (torch.zeros(10_000, 10), torch.zeros(10_000, 10_000), torch.ones(1, 10_000))
    net |= {f"weight{layer}": weight for layer, weight in enumerate(weights)}
    logits = mlp.apply_net(
        net, torch.zeros(1, 10), torch.zeros(1, 1), torch.Generator().manual_seed(0)
    )
    assert logits.item() == pytest.approx(10_000, abs=500)
    assert logits.item() % 2 == 0 and logits.item() != 10_000  # each kept unit counts double


def test_the_blend_is_better_than_the_linear_one_and_that_than_none():
    mlp_loss, linear_loss = (
        measure_log_loss(cross_fit_by(method), LEVELS) for method in ("mlp", "linear")
    )
    assert mlp_loss < linear_loss - 0.01 < measure_log_loss(SCORES, LEVELS) - 0.1


def test_few_patients_do_no_harm():
    levels, scores = draw_scores(4000, seed=4)
    test = Pairs(scores, scores.reshape(-1, 2, 5)[:, ::-1].reshape(-1, 5))
    for first in range(0, 360, 120):
        few, rest = np.r_[first : first + 120], np.r_[0:first, first + 120 : 4000]  # 60 patients
        blended = mlp.fit_predictor(test.select(few), levels[few], "mlp", 0)(test.select(rest))
        assert measure_log_loss(blended, levels[rest]) < measure_log_loss(
            scores[rest], levels[rest]
        )


def test_the_fit_is_deterministic_and_leaves_torch_as_it_was(quick):
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(n_threads + 1)
    first, again, other = (mlp.fit_blend(PAIRS, LEVELS, "mlp", seed) for seed in (0, 0, 1))
    assert (mlp.apply_blend(first, PAIRS) == mlp.apply_blend(again, PAIRS)).all()
    assert (torch.get_rng_state() == before).all() and torch.get_num_threads() == n_threads + 1
    torch.set_num_threads(n_threads)
    assert (mlp.apply_blend(first, PAIRS) != mlp.apply_blend(other, PAIRS)).any()
    assert (
        len(first.nets) == mlp.N_SEEDS
        and (first.nets[0]["weight0"] != first.nets[1]["weight0"]).any()
    )


@pytest.mark.parametrize("method", train.METHODS)
def test_a_patients_out_of_fold_scores_do_not_know_its_levels(method, quick):
    folds = assign_folds(GROUPS, LEVELS, 5, SEED)
    held, changed = folds == folds[0], LEVELS.copy()
    changed[held & np.array([image.endswith("left") for image in IMAGES])] = (
        0  # the worse eye, hence the fold, stays
    )
    assert (assign_folds(GROUPS, changed, 5, SEED) == folds).all()
    before, after = (cross_fit_by(method, levels) for levels in (LEVELS, changed))
    assert (before[held] == after[held]).all() and (before[~held] != after[~held]).any()


def test_explicit_files_need_no_cache_keep_the_ids_and_come_out_alike_again(files, quick, capsys):
    train_on(files)
    shown, model = capsys.readouterr().out, (files / "model.pt").read_bytes()
    assert re.fullmatch("blend.train: 400 images.* raw .* linear .* mlp .*\n", shown)
    train_on(files)
    assert (files / "model.pt").read_bytes() == model
    shuffled = pd.read_csv(files / "scores.csv").drop(index=[0, 7]).sample(frac=1, random_state=0)
    shuffled.to_csv(files / "shuffled.csv", index=False)
    blended = predict_by(files / "model.pt", files / "shuffled.csv")
    assert sorted(blended.index) == sorted(shuffled["image"])
    whole = mlp.apply_blend(mlp.load_blend(files / "model.pt"), PAIRS)
    for image in ("57_left", "200_right", "3_left"):
        assert blended.loc[image].to_numpy() == pytest.approx(whole[IMAGES.index(image)], abs=1e-6)


def test_what_cannot_be_fitted_or_applied_is_said_and_leaves_no_file(files, tmp_path):
    model = files / "model.pt"
    with pytest.raises(
        InputError, match=r"model\.pt: no such checkpoint; run python -m blend\.train first"
    ):
        predict_by(model, files / "scores.csv")
    write_scores(files / "scores.csv", IMAGES[:2], SCORES[:2], TASK)
    with pytest.raises(InputError, match=r"scores\.csv: one patient only"):
        train_on(files)
    write_scores(files / "scores.csv", ["999_left", *IMAGES[:4]], SCORES[:5], TASK)
    with pytest.raises(
        InputError, match=r"1 images of .*scores\.csv are not in .*labels\.csv: 999_left"
    ):
        train_on(files)
    assert sorted(path.name for path in files.iterdir()) == ["labels.csv", "scores.csv"]


def test_the_cache_is_used_and_a_change_is_named(cached, quick, tmp_path, capsys):
    folder = tmp_path / "blend"
    train.main(cached)
    predict.main(cached)
    assert capsys.readouterr().out.count("(not made yet)") == 2
    for name, images in (
        ("scores_valid", IMAGES[:200]),
        ("scores_test", IMAGES[200:]),
        ("linear_test", IMAGES[200:]),
    ):
        assert list(read_scores(folder / f"{name}.csv", TASK).index) == images
    out_of_fold = cross_fit_by("mlp", n_images=200)
    assert read_scores(folder / "scores_valid.csv", TASK).to_numpy() == pytest.approx(
        out_of_fold, abs=1e-6
    )
    train.main(cached)
    predict.main(cached)
    assert capsys.readouterr().out == "blend.train: cached\nblend.predict: cached\n"
    train.main([*cached, "--method=linear"])
    assert "(method changed from mlp to linear)" in capsys.readouterr().out
    predict.main(cached)
    assert "(model.pt changed, out_of_fold.csv changed)" in capsys.readouterr().out
    assert (folder / "scores_test.csv").read_bytes() == (folder / "linear_test.csv").read_bytes()
    weight = blending.fit_fellow_weight(PAIRS.select(slice(200)), LEVELS[:200])
    expected = blending.blend_linear(PAIRS.select(slice(200, 400)), weight)
    assert read_scores(folder / "scores_test.csv", TASK).to_numpy() == pytest.approx(
        expected, abs=1e-6
    )


def test_a_damaged_output_is_made_again_and_one_of_a_test_set_that_is_no_more_removed(
    cached, tmp_path, capsys
):
    folder, nets = tmp_path / "blend", tmp_path / "dr"
    train.main([*cached, "--method=linear"])
    predict.main(cached)
    whole = (folder / "scores_test.csv").read_bytes()
    (folder / "scores_test.csv").write_bytes(whole[:100])
    predict.main(cached)
    assert "scores_test.csv is not what was written" in capsys.readouterr().out
    assert (folder / "scores_test.csv").read_bytes() == whole
    (nets / "scores_test.csv").unlink()
    predict.main(cached)
    assert (folder / "scores_valid.csv").exists() and not list(folder.glob("*_test.csv"))
    manifest.write_manifest(
        nets, "dr.predict", {}, {}, {"scores_test.csv": "0" * 64}
    )  # they had been made
    with pytest.raises(
        InputError, match=r"scores_test\.csv: no such file; run python -m dr\.predict again"
    ):
        predict.main(cached)


@pytest.mark.parametrize("stage", [train, predict])
def test_what_is_missing_is_said(stage, tmp_path):
    with pytest.raises(InputError, match="run python -m preprocess first"):
        stage.main([f"--cache={tmp_path}"])
    for alone in ("--scores=S.csv", "--out=B.csv"):  # explicit files come together
        with pytest.raises(SystemExit, match="^2$"):
            stage.main([alone])
