"""The blends: what they compute, that they learn, do no harm on few patients, leak nothing, and keep their files."""

import numpy as np
import pandas as pd
import pytest
import torch

from blend import linear, mlp, predict, train
from blend.pairs import Pairs, pair_eyes
from dr.scores import measure_log_loss, read_scores, write_scores
from preprocess import eyes
from preprocess.stage import InputError, write_manifest

IMAGES = [f"{patient}_{side}" for patient in range(1, 201) for side in ("left", "right")]


def draw_scores(n_images, rng):
    """Return (levels, scores): fellows alike, each image's scores far too sure of what they saw."""
    levels = np.repeat(rng.choice(5, n_images // 2, p=[0.5, 0.15, 0.2, 0.1, 0.05]), 2)
    seen = levels + rng.normal(0, 0.8, n_images)
    logits = -3.0 * (seen[:, None] - np.arange(5)) ** 2
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return levels, scores / scores.sum(axis=1, keepdims=True)


LEVELS, SCORES = draw_scores(len(IMAGES), np.random.default_rng(0))
PAIRS = pair_eyes(IMAGES, SCORES)


@pytest.fixture
def files(tmp_path):
    """Scores and labels as explicit files."""
    write_scores(tmp_path / "scores.csv", IMAGES, SCORES)
    pd.DataFrame({"image": IMAGES, "level": LEVELS}).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


@pytest.fixture
def cached(tmp_path):
    """Options of a data folder and a cache in which the net's scores are there: 100 patients each."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    pd.DataFrame({"image": IMAGES[:200], "level": LEVELS[:200]}).to_csv(data / "trainLabels.csv", index=False)
    write_scores(cache / "dr" / "scores_valid.csv", IMAGES[:200], SCORES[:200])
    write_scores(cache / "dr" / "scores_test.csv", IMAGES[200:], SCORES[200:])
    return [f"--data={data}", f"--cache={cache}"]


@pytest.fixture
def quick(monkeypatch):
    """Networks that are hardly trained, where only their files matter."""
    monkeypatch.setattr(mlp, "N_EPOCHS", 1)
    monkeypatch.setattr(mlp, "N_SEEDS", 2)


def run(stage, *arguments):
    stage.main([str(argument) for argument in arguments])


# --- linear -----------------------------------------------------------------------------------------------------------


def test_linear_is_the_weighted_mean():
    pairs = Pairs(np.array([[1.0, 0, 0, 0, 0]]), np.array([[0, 0, 1.0, 0, 0]]))
    assert linear.blend_linear(pairs, 0.25).tolist() == [[0.75, 0, 0.25, 0, 0]]


def test_the_fellow_weight_is_the_best_of_a_grid_but_for_the_prior():
    losses = [measure_log_loss(linear.blend_linear(PAIRS, c), LEVELS) for c in np.linspace(0, 1, 1001)]
    best = np.argmin(losses) / 1000
    assert 0.2 < best < 0.6
    assert linear.fit_fellow_weight(PAIRS, LEVELS) == pytest.approx(best * 400 / 450, abs=0.002)


def test_a_useless_fellow_gets_no_weight():
    noise = np.random.default_rng(1).dirichlet(np.ones(5), len(IMAGES))
    own = np.eye(5)[LEVELS] * 0.9 + 0.02
    assert linear.fit_fellow_weight(Pairs(own, noise), LEVELS) < 0.001


# --- mlp --------------------------------------------------------------------------------------------------------------


def test_the_network_has_the_articles_layers():
    net = mlp.make_net(mlp.make_features(PAIRS).shape[1], 5, torch.Generator())
    shapes = [tuple(net[f"weight{layer}"].shape) for layer in range(3)]
    assert shapes == [(500, 10), (500, 500), (5, 500)]


def test_an_untrained_network_is_the_linear_blend():
    net = mlp.make_net(10, 5, torch.Generator().manual_seed(0))
    scores = np.random.default_rng(0).dirichlet(np.full(5, 5.0), (2, 30))  # none below the floor of the logarithms
    pairs = Pairs(*scores)
    assert mlp.predict_mlp([net], pairs, 0.3) == pytest.approx(linear.blend_linear(pairs, 0.3), abs=1e-6)


def test_dropout_keeps_half_of_the_units_and_the_mean():
    net = {"bias0": torch.zeros(10_000), "bias1": torch.ones(10_000), "bias2": torch.zeros(1)}
    weights = (torch.zeros(10_000, 10), torch.zeros(10_000, 10_000), torch.ones(1, 10_000))
    net |= {f"weight{layer}": weight for layer, weight in enumerate(weights)}
    logits = mlp.apply_net(net, torch.zeros(1, 10), torch.zeros(1, 1), torch.Generator().manual_seed(0))
    assert logits.item() == pytest.approx(10_000, abs=500)
    assert logits.item() % 2 == 0 and logits.item() != 10_000  # each kept unit counts double


def test_the_blend_is_better_than_the_linear_one_and_that_than_none():
    losses = {
        method: measure_log_loss(train.cross_fit(IMAGES, SCORES, LEVELS, method), LEVELS) for method in train.METHODS
    }
    assert losses["mlp"] < losses["linear"] - 0.01 < measure_log_loss(SCORES, LEVELS) - 0.1


def test_few_patients_do_no_harm():
    rng = np.random.default_rng(4)
    levels, scores = draw_scores(4000, rng)
    test = Pairs(scores, scores.reshape(-1, 2, 5)[:, ::-1].reshape(-1, 5))
    for first in range(0, 600, 120):
        few = slice(first, first + 120)  # 60 patients
        blend = mlp.fit_blend(test.select(few), levels[few], "mlp", None, 0)
        rest = np.r_[0:first, first + 120 : 4000]
        blended = mlp.apply_blend(blend, test.select(rest))
        assert measure_log_loss(blended, levels[rest]) < measure_log_loss(scores[rest], levels[rest])


def test_the_fit_is_deterministic_and_leaves_torch_as_it_was():
    torch.manual_seed(1)
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    first, again = (mlp.fit_blend(PAIRS, LEVELS, "mlp", None, 0) for _ in range(2))
    assert (mlp.apply_blend(first, PAIRS) == mlp.apply_blend(again, PAIRS)).all()
    assert (torch.get_rng_state() == before).all() and torch.get_num_threads() == n_threads
    other = mlp.fit_blend(PAIRS, LEVELS, "mlp", None, 1)
    assert (mlp.apply_blend(first, PAIRS) != mlp.apply_blend(other, PAIRS)).any()


def test_networks_of_one_blend_differ():
    nets = mlp.fit_blend(PAIRS.select(slice(50)), LEVELS[:50], "mlp", None, 0).nets
    assert len(nets) == mlp.N_SEEDS
    assert (nets[0]["weight0"] != nets[1]["weight0"]).any()


@pytest.mark.parametrize("method", train.METHODS)
def test_a_patients_out_of_fold_scores_do_not_know_its_levels(method, quick):
    folds = eyes.assign_folds(IMAGES, LEVELS, 5, train.SEED)
    held = folds == folds[0]
    changed = LEVELS.copy()
    changed[held & np.array([image.endswith("left") for image in IMAGES])] = 0  # the worse eye, hence the fold, stays
    assert (eyes.assign_folds(IMAGES, changed, 5, train.SEED) == folds).all()
    before, after = (train.cross_fit(IMAGES, SCORES, levels, method) for levels in (LEVELS, changed))
    assert (before[held] == after[held]).all() and (before[~held] != after[~held]).any()


# --- files ------------------------------------------------------------------------------------------------------------


def test_explicit_files_need_no_cache_and_keep_the_ids(files, quick, capsys):
    run(train, "--scores", files / "scores.csv", "--labels", files / "labels.csv", "--out", files / "model.pt")
    shown = capsys.readouterr().out
    assert shown.startswith("blend.train: 400 images") and shown.count("\n") == 1
    assert all(name in shown for name in ("raw", "linear", "mlp"))
    table = pd.read_csv(files / "scores.csv")
    shuffled = table.drop(index=[0, 7]).sample(frac=1, random_state=0)
    shuffled.to_csv(files / "shuffled.csv", index=False)
    run(predict, "--scores", files / "shuffled.csv", "--model", files / "model.pt", "--out", files / "blended.csv")
    blended = read_scores(files / "blended.csv")
    assert sorted(blended.index) == sorted(shuffled["image"])
    whole = mlp.apply_blend(mlp.load_blend(files / "model.pt"), PAIRS)
    for image in ("57_left", "200_right", "3_left"):
        assert blended.loc[image].to_numpy() == pytest.approx(whole[IMAGES.index(image)], abs=1e-6)


def test_the_same_command_writes_the_same_bytes(files, quick):
    for out in ("one.pt", "two.pt"):
        run(train, "--scores", files / "scores.csv", "--labels", files / "labels.csv", "--out", files / out)
        run(predict, "--scores", files / "scores.csv", "--model", files / out, "--out", files / f"{out}.csv")
    assert (files / "one.pt.csv").read_bytes() == (files / "two.pt.csv").read_bytes()
    assert (files / "one.pt").read_bytes() == (files / "two.pt").read_bytes()


def test_a_given_weight_is_the_linear_blends(files):
    arguments = ("--scores", files / "scores.csv", "--labels", files / "labels.csv", "--out", files / "model.pt")
    run(train, *arguments, "--method", "linear", "--fellow-weight", "0.25")
    run(predict, "--scores", files / "scores.csv", "--model", files / "model.pt", "--out", files / "blended.csv")
    assert read_scores(files / "blended.csv").to_numpy() == pytest.approx(linear.blend_linear(PAIRS, 0.25), abs=1e-8)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another's", "missing"])
def test_what_is_no_checkpoint_is_one_line(files, damage):
    path = files / "model.pt"
    mlp.save_blend(path, mlp.Blend(0.2, []))
    whole = path.read_bytes()
    if damage == "another's":
        torch.save({"state": torch.zeros(3)}, path)
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"image,p0\n" * 50}[damage])
    with pytest.raises(InputError, match="model.pt: ") as error:
        run(predict, "--scores", files / "scores.csv", "--model", path, "--out", files / "blended.csv")
    assert "\n" not in str(error.value)
    assert not (files / "blended.csv").exists()


def test_a_score_without_label_is_named(files):
    pd.DataFrame({"image": IMAGES[1:], "level": LEVELS[1:]}).to_csv(files / "labels.csv", index=False)
    with pytest.raises(InputError, match="1_left"):
        run(train, "--scores", files / "scores.csv", "--labels", files / "labels.csv", "--out", files / "model.pt")
    assert not (files / "model.pt").exists()


def test_the_cache_is_used_and_a_change_is_named(cached, quick, tmp_path, capsys):
    folder = tmp_path / "cache" / "blend"
    for stage in (train, predict):
        run(stage, *cached)
    assert capsys.readouterr().out.count("(not made yet)") == 2
    for name, images in (("scores_valid", IMAGES[:200]), ("scores_test", IMAGES[200:]), ("linear_test", IMAGES[200:])):
        assert list(read_scores(folder / f"{name}.csv").index) == images
    out_of_fold = train.cross_fit(IMAGES[:200], SCORES[:200], LEVELS[:200], "mlp")
    assert read_scores(folder / "scores_valid.csv").to_numpy() == pytest.approx(out_of_fold, abs=1e-6)
    for stage in (train, predict):
        run(stage, *cached)
    assert capsys.readouterr().out == "blend.train: cached\nblend.predict: cached\n"
    run(train, *cached, "--method=linear")
    assert "(method changed from mlp to linear)" in capsys.readouterr().out
    run(predict, *cached)
    assert "(model.pt changed, out_of_fold.csv changed)" in capsys.readouterr().out
    same = [(folder / f"{name}_test.csv").read_bytes() for name in ("scores", "linear")]
    assert same[0] == same[1]


def test_a_damaged_output_is_made_again(cached, tmp_path, capsys):
    path = tmp_path / "cache" / "blend" / "scores_test.csv"
    run(train, *cached, "--method=linear")
    run(predict, *cached)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    run(predict, *cached)
    assert "scores_test.csv is not what was written" in capsys.readouterr().out
    assert path.read_bytes() == whole


def test_without_test_scores_the_validation_fold_is_served(cached, tmp_path):
    (tmp_path / "cache" / "dr" / "scores_test.csv").unlink()
    run(train, *cached, "--method=linear")
    run(predict, *cached)
    folder = tmp_path / "cache" / "blend"
    assert (folder / "scores_valid.csv").exists() and not (folder / "scores_test.csv").exists()


def test_a_test_set_that_is_no_more_leaves_no_scores(cached, tmp_path):
    run(train, *cached, "--method=linear")
    run(predict, *cached)
    (tmp_path / "cache" / "dr" / "scores_test.csv").unlink()
    run(predict, *cached)
    assert not list((tmp_path / "cache" / "blend").glob("*_test.csv"))


def test_test_scores_that_were_made_and_are_gone_are_asked_for(cached, tmp_path):
    folder = tmp_path / "cache" / "dr"
    write_manifest(folder, "dr.predict", {}, {}, {"scores_test.csv": "0" * 64})
    run(train, *cached, "--method=linear")
    run(predict, *cached)
    (folder / "scores_test.csv").unlink()
    with pytest.raises(InputError, match=r"scores_test\.csv: no such file; run python -m dr\.predict again"):
        run(predict, *cached)


def test_one_patient_is_too_few_to_judge_a_blend_by(files):
    write_scores(files / "scores.csv", IMAGES[:2], SCORES[:2])
    with pytest.raises(InputError, match=r"scores\.csv: one patient only"):
        run(train, "--scores", files / "scores.csv", "--labels", files / "labels.csv", "--out", files / "model.pt")


@pytest.mark.parametrize(("stage", "before"), [(train, "dr.predict"), (predict, "blend.train")])
def test_what_is_missing_is_said(stage, before, tmp_path):
    with pytest.raises(InputError, match=f"run python -m {before} first"):
        run(stage, f"--cache={tmp_path / 'cache'}")


@pytest.mark.parametrize("arguments", [["--scores=S.csv"], ["--out=B.csv"]])
@pytest.mark.parametrize("stage", [train, predict])
def test_explicit_files_come_together(stage, arguments):
    with pytest.raises(SystemExit) as end:
        run(stage, *arguments)
    assert end.value.code == 2


@pytest.mark.parametrize("weight", ["1.5", "-0.1", "nan", "much"])
def test_a_weight_outside_0_to_1_is_refused(weight):
    with pytest.raises(SystemExit):
        run(train, "--fellow-weight", weight)
