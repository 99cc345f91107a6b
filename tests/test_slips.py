"""Slips of the hand: nothing is lost by one, and nothing wrong ends with exit 0."""

import gzip
import importlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blend import predict, train
from blend.pairs import fit_fellow_weight, pair_eyes
from dr.metrics.agreement import quadratic_weighted_kappa
from dr.scores import read_scores, write_scores
from kappa import assign, score
from preprocess.cache import rejected
from preprocess.dataset import kaggle, readers
from preprocess.dataset.dataset import Subject
from preprocess.disk.errors import InputError
from submissions import write
from submissions.output import target
from tests import layouts
from tests.tasks import TASK

ROOT = Path(__file__).parents[1]
IMAGES = [f"{patient}_{side}" for patient in range(1, 61) for side in ("left", "right")]
RNG = np.random.default_rng(0)
LEVELS = np.repeat(RNG.integers(0, 5, 60), 2)
SCORES = 0.6 * np.eye(5)[LEVELS] + 0.4 * RNG.dirichlet(np.ones(5), len(IMAGES))
COLUMNS = [f"p{level}" for level in range(5)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with scores.csv and labels.csv."""
    monkeypatch.chdir(tmp_path)
    write_scores(Path("scores.csv"), IMAGES, SCORES, TASK)
    pd.DataFrame({"image": IMAGES, "level": LEVELS}).to_csv("labels.csv", index=False)
    return tmp_path


def change(name, make):
    """Write scores.csv or labels.csv anew, as `make` changes the table of it."""
    make(pd.read_csv(name, dtype={"level": object})).to_csv(name, index=False)


def decide(*more, out="levels.csv"):
    assign.main(["--scores=scores.csv", f"--out={out}", "--method=exact", *more])


def fit(*more):
    train.main(
        ["--scores=scores.csv", "--labels=labels.csv", "--out=blend.pt", "--method=linear", *more]
    )


# --- what --out names -------------------------------------------------------------------------------------------------


def test_a_link_stays_and_what_it_leads_to_is_written(here):
    Path("folder").mkdir()
    Path("levels.csv").symlink_to("folder/real.csv")  # which is not there yet
    for _ in range(2):
        decide()
        assert Path("levels.csv").is_symlink()
        assert len(pd.read_csv("folder/real.csv")) == len(IMAGES)
    assert [path.name for path in Path("folder").iterdir()] == ["real.csv"]


def test_a_pipe_and_the_standard_output_get_the_table_and_stay(here):
    os.mkfifo("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()), daemon=True)
    reader.start()
    decide(out="pipe")
    reader.join(10)
    assert Path("pipe").is_fifo()
    decide()
    assert got == [Path("levels.csv").read_bytes()]
    Path("printed").symlink_to(
        "/dev/fd/1"
    )  # as /dev/stdout is one, which no failing test may replace
    command = [
        sys.executable,
        "-m",
        "kappa.assign",
        "--scores=scores.csv",
        "--out=printed",
        "--method=exact",
    ]
    with open("printed.csv", "wb") as file:
        for stdout in (subprocess.PIPE, file):
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                command, stdout=stdout, stderr=subprocess.PIPE, env=environment, check=True
            )
            assert (done.stdout or Path("printed.csv").read_bytes()) == got[0]
            assert done.stderr.startswith(b"kappa.assign: 120 images")


@pytest.mark.parametrize("out", ["scores.csv", "link.csv"])
def test_what_is_read_is_not_written_over(here, out):
    before = Path("scores.csv").read_bytes()
    Path("link.csv").symlink_to("scores.csv")
    for main in (lambda: decide(out=out), lambda: fit(f"--out={out}")):
        with pytest.raises(InputError, match=f"{out}: is also an input"):
            main()
    assert Path("scores.csv").read_bytes() == before


def test_a_table_whose_name_ends_in_gz_is_gzipped_and_comes_out_alike(here):
    decide()
    decide(out="levels.csv.gz")
    first = Path("levels.csv.gz").read_bytes()
    assert gzip.decompress(first) == Path("levels.csv").read_bytes()
    decide(out="other.csv.gz")
    assert Path("other.csv.gz").read_bytes() == first


@pytest.mark.parametrize("name", ["scores", "labels"])
def test_a_named_pipe_is_refused_where_a_table_is_wanted(here, name):
    Path(f"{name}.csv").unlink()
    os.mkfifo(f"{name}.csv")
    with pytest.raises(InputError, match=f"{name}.csv: not a regular file"):
        fit()


# --- what tables hold -------------------------------------------------------------------------------------------------


def test_eyes_without_a_fellow_say_nothing_of_its_weight(here, capsys):
    owners, rng = [kaggle.find_subject(image) for image in IMAGES], np.random.default_rng(1)
    noise = 0.1 * np.eye(5)[LEVELS] + 0.9 * rng.dirichlet(np.ones(5), len(IMAGES))
    pairs = pair_eyes(owners, noise)
    lone = rng.dirichlet(np.ones(5), 500)
    mixed = pair_eyes(
        [*owners, *(Subject(f"x{row}", "left") for row in range(500))], np.vstack([noise, lone])
    )
    weight = fit_fellow_weight(pairs, LEVELS)
    assert 0.1 < weight == fit_fellow_weight(mixed, np.r_[LEVELS, rng.integers(0, 5, 500)])
    change("scores.csv", lambda table: table[table["image"].str.endswith("left")])
    fit()
    assert (
        "60 images, fellow's weight 0.00 (none of these eyes has a fellow)"
        in capsys.readouterr().out
    )


def test_scores_worse_than_guessing_are_asked_about(here, capsys):
    fit()
    assert not capsys.readouterr().err
    change("scores.csv", lambda table: table.set_axis(["image", *COLUMNS[::-1]], axis=1))
    fit()
    warned = r"warning: scores\.csv: log loss \S+, worse than guessing .* are p0, p1, .* in the order of the levels\?\n"
    assert re.fullmatch(warned, capsys.readouterr().err)


@pytest.mark.parametrize("decimals", [2, 3, 5])
def test_rounded_scores_are_taken_and_their_sums_mended(here, decimals):
    change("scores.csv", lambda table: table.round(decimals))
    sums = pd.read_csv("scores.csv")[COLUMNS].sum(axis=1)
    assert abs(sums - 1).max() > 10.0**-decimals / 2
    scores = read_scores(Path("scores.csv"), TASK)
    assert scores.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-12)
    decide()


@pytest.mark.parametrize(
    "row", ["0.7,0.2,0,0,0", "1,1,0,0,0", "0.333,0.333,0.33,0,0", "0.499,0.49951171875,0,0,0"]
)
def test_sums_that_rounding_does_not_explain_want_normalize(here, row):
    Path("scores.csv").write_text(
        f"image,{','.join(COLUMNS)}\n1_left,{row}\n1_right,0.5,0.5,0,0,0\n"
    )
    with pytest.raises(
        InputError, match=r"row 2: image 1_left: the scores sum to .*, not 1; --normalize divides"
    ):
        decide()
    decide("--normalize")
    given = np.array(row.split(","), float)
    normalized = read_scores(Path("scores.csv"), TASK, normalize=True)
    assert normalized.loc["1_left"].to_numpy() == pytest.approx(given / given.sum())


@pytest.mark.parametrize("row", ["0,0,0,0,0", "1,-0.1,0,0,0"])
def test_what_cannot_be_normalized_is_refused(here, row):
    Path("scores.csv").write_text(f"image,{','.join(COLUMNS)}\n1_left,{row}\n")
    with pytest.raises(
        InputError, match=r"row 2: image 1_left: (the scores sum to 0|a score is negative)"
    ):
        decide("--normalize")


@pytest.mark.parametrize("name", ["scores.csv", "labels.csv"])
def test_an_id_with_an_extension_is_told_to_drop_it(here, name):
    change(name, lambda table: table.assign(image=table["image"] + ".JPEG"))
    with pytest.raises(InputError, match=rf"{name}, row 2: image 1_left\.JPEG: drop the \.JPEG"):
        fit()


def test_empty_levels_are_left_out_if_asked(here, capsys):
    change(
        "labels.csv",
        lambda table: table.assign(level=table["level"].where(table.index % 10 > 0, "")).iloc[:-1],
    )
    with pytest.raises(
        InputError, match=r"labels\.csv, row 2: level is '', not known; --known-only"
    ):
        fit()
    fit("--known-only")
    assert (
        "107 images" in (shown := capsys.readouterr().out)
        and "13 without a known level left out" in shown
    )
    change("labels.csv", lambda table: table.assign(level=""))
    with pytest.raises(InputError, match=r"120 images of scores\.csv are not in labels\.csv"):
        fit("--known-only")


@pytest.mark.parametrize("main", [train.main, predict.main, assign.main])
def test_options_for_explicit_files_want_some(main, capsys):
    with pytest.raises(SystemExit, match="^2$"):
        main(["--normalize"])
    assert "--normalize" in capsys.readouterr().err


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_side_in_capitals_is_the_same_eye(here):
    folder = here / "data" / "train"
    folder.mkdir(parents=True)
    for name in ("10_LEFT.JPG", "10_Right_b.png"):
        (folder / name).touch()
    assert list(kaggle.list_folder(here / "data" / "train").paths) == ["10_left", "10_right_b"]
    (folder / "10_left.jpeg").touch()
    with pytest.raises(InputError, match="are both image 10_left"):
        kaggle.list_folder(here / "data" / "train")
    (folder / "10_left.jpeg").unlink()
    change("scores.csv", lambda table: table.assign(image=table["image"].str.upper()))
    fit()
    decide()
    sample = here / "data" / "sampleSubmission.csv"
    pd.DataFrame({"image": [image.upper() for image in IMAGES], "level": 0}).to_csv(
        sample, index=False
    )
    write.main(["--data=data", "--levels=levels.csv", "--out=out.csv"])
    assert list(pd.read_csv("out.csv")["image"]) == [
        image.upper() for image in IMAGES
    ]  # as the sample has them


def test_pairs_of_other_names_are_told_by_a_table(here, capsys):
    fit()
    expected = capsys.readouterr().out
    change(
        "scores.csv",
        lambda table: table.assign(image="scan" + table["image"].str.replace("_", "x")),
    )
    change(
        "labels.csv",
        lambda table: table.assign(image="scan" + table["image"].str.replace("_", "x")),
    )
    with pytest.raises(InputError, match="image id 'scan1xleft' is not .*; --pairs-from TABLE"):
        fit()
    owners = [kaggle.find_subject(image) for image in IMAGES]
    pairs = pd.DataFrame({"image": [f"scan{owner.patient}x{owner.side}" for owner in owners]})
    pairs["group"], pairs["side"] = (
        [owner.patient for owner in owners],
        [owner.side.title() for owner in owners],
    )
    pairs.to_csv("pairs.csv", index=False)
    fit("--pairs-from=pairs.csv")
    assert capsys.readouterr().out.split(",")[0] == expected.split(",")[0]
    predict.main(
        ["--scores=scores.csv", "--model=blend.pt", "--out=blended.csv", "--pairs-from=pairs.csv"]
    )
    assert len(pd.read_csv("blended.csv")) == len(IMAGES)
    pairs.iloc[1:].to_csv("pairs.csv", index=False)
    with pytest.raises(
        InputError, match=r"1 images of the scores are not in pairs\.csv: scan1xleft"
    ):
        fit("--pairs-from=pairs.csv")
    pairs.assign(side="both").to_csv("pairs.csv", index=False)
    with pytest.raises(InputError, match=r"pairs\.csv, row 2: side 'both' is not left or right"):
        fit("--pairs-from=pairs.csv")


@pytest.mark.parametrize("prefix", ["", "scan"])
def test_levels_are_scored_without_a_cache(here, capsys, prefix):
    decide()
    for name in ("levels.csv", "labels.csv"):
        change(
            name, lambda table: table.assign(image=[f"{prefix}{image}" for image in table["image"]])
        )
    if prefix:
        for name in ("levels.csv", "labels.csv"):
            change(name, lambda table: table.assign(image=table["image"].str.replace("_", "")))
    score.main(["--levels=levels.csv", "--labels=labels.csv"])
    shown = capsys.readouterr()
    levels = pd.read_csv("levels.csv", index_col="image")["level"][
        pd.read_csv("labels.csv")["image"]
    ].to_numpy()
    assert f"kappa {quadratic_weighted_kappa(LEVELS, levels):.4f}, 95 % interval " in shown.out
    assert ("over 120 images" if prefix else "over 60 patients") in shown.out
    row = [int(count) for count in np.bincount(levels[LEVELS == 2], minlength=5)]
    assert f"2 {' '.join(map(str, row))}" in " ".join(shown.out.split())
    assert not shown.err
    change("levels.csv", lambda table: table.assign(level=4 - table["level"].astype(int)))
    score.main(["--levels=levels.csv", "--labels=labels.csv"])
    assert "worse than levels drawn by lot" in capsys.readouterr().err


# --- submissions and downloads ----------------------------------------------------------------------------------------


def test_a_submission_of_another_cache_is_not_written_over_unasked(here, monkeypatch, capsys):
    monkeypatch.setattr(target, "FOLDER", here / "submissions")
    decide()
    pd.DataFrame({"image": IMAGES, "level": 0}).to_csv("sampleSubmission.csv", index=False)
    options = ["--data=.", "--levels=levels.csv", "--name=real"]
    write.main([*options, "--cache=first"])
    write.main([*options, "--cache=first"])  # its own
    out = here / "submissions" / "real.csv"
    before = out.read_bytes()
    change("levels.csv", lambda table: table.assign(level=0))
    for check in ([], ["--check-options"]):  # at once, not after hours
        with pytest.raises(
            InputError, match=r"real\.csv: made from .*first; --overwrite .* or give another --name"
        ):
            write.main([*options, "--cache=second", *check])
    assert out.read_bytes() == before
    write.main([*options, "--cache=second", "--overwrite"])
    assert out.read_bytes() != before
    with pytest.raises(InputError, match="made from .*second"):
        write.main([*options, "--cache=first"])
    (here / "submissions" / target.MADE_FROM).write_text("[damaged")
    with pytest.raises(InputError, match="as far as is known"):
        write.main([*options, "--cache=second"])
    with pytest.raises(InputError, match=r"sampleSubmission\.csv: belongs to the data"):
        write.main([*options, "--out=sampleSubmission.csv"])


def test_missing_files_are_counted_apart_from_damaged_ones(tmp_path):
    reasons = dict.fromkeys(IMAGES, rejected.MISSING) | {"9_left": "truncated", "9_right": "empty"}
    with pytest.raises(
        InputError,
        match=r"^2 photographs are rejected \(9_left: truncated\), 118 files are missing",
    ):
        rejected.check_rejected(tmp_path, reasons, False)
    rejected.record_rejected(tmp_path, "crop", "train", reasons)
    assert [row.image for row in rejected.read_rejected(tmp_path)[:2]] == ["9_left", "9_right"]
    with pytest.raises(InputError, match=r"^1 file is missing \(1_left\); see"):
        rejected.check_rejected(tmp_path, {"1_left": rejected.MISSING}, False)


@pytest.mark.parametrize(
    "name", ["trainLabels.csv", "sampleSubmission.csv", "train/10_left.jpeg", "test/new.csv"]
)
@pytest.mark.parametrize(
    ("module", "option"),
    [
        ("preprocess.crop", "--sheet"),
        ("submissions.report", "--out"),
        ("submissions.write", "--out"),
    ],
)
def test_what_is_read_in_the_data_folder_is_never_written(data, tmp_path, name, module, option):
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    main = importlib.import_module(
        "submissions.report.__main__" if module.endswith("report") else module
    ).main
    with pytest.raises(InputError, match="belongs to the data, and would be lost"):
        main([f"--data={data}", f"--cache={tmp_path / 'cache'}", f"{option}={data / name}"])
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["train_images/new.csv", "test_images/new.csv", "train.csv"])
def test_nothing_is_written_beside_the_photographs_of_a_layout_either(tmp_path, name):
    layouts.draw_aptos(tmp_path)
    dataset = readers.read_dataset(tmp_path)
    dataset.check_out(tmp_path / "new.csv")
    with pytest.raises(InputError, match="belongs to the data, and would be lost"):
        dataset.check_out(tmp_path / name)
