"""Small faults that people's reports named, each by the kind: what it must do instead."""

import importlib
import io
import shutil
from importlib.util import find_spec

import pandas as pd
import pytest
import torch

from dr.machine import device
from kappa import score
from preprocess import split
from preprocess.cache import manifest, stage
from preprocess.command import recipe
from preprocess.dataset import findings, readers
from preprocess.disk import tables
from preprocess.disk.errors import InputError
from submissions import ensemble, page
from submissions.output import target


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes('\ufeff[blend.train]\nmethod = "linear"\n'.encode())
    assert recipe.read_chain(str(path))[-1].sections == {"blend.train": {"method": "linear"}}


def measure(folder, given, true, capsys, *options):
    """Return what kappa.score prints of two tables of levels, image -> level."""
    for name, levels in (("given.csv", given), ("true.csv", true)):
        pd.Series(levels, name="level").rename_axis("image").to_csv(folder / name)
    capsys.readouterr()
    score.main([f"--levels={folder / 'given.csv'}", f"--labels={folder / 'true.csv'}", *options])
    return capsys.readouterr().out


def test_kappa_is_not_measurable_on_one_level_and_has_no_interval_over_one_patient(
    tmp_path, capsys
):
    same = {f"{patient}_left": 2 for patient in range(5)}
    assert "kappa not measurable: all true levels are 2\n" in measure(tmp_path, same, same, capsys)
    eyes = {"1_left": 0, "1_right": 3}
    assert "kappa 1.0000, interval not measurable over one patient\n" in measure(
        tmp_path, eyes, eyes, capsys
    )


def test_draws_that_lose_all_levels_but_one_are_counted(tmp_path, capsys):
    true = {"1_left": 0, "2_left": 1, "3_left": 1}
    given = {"1_left": 0, "2_left": 1, "3_left": 0}
    told = measure(tmp_path, given, true, capsys)
    assert "of 1,000 draws have one true level only, and are left out" in told
    n_lost = int(told.split("(")[1].split(" ")[0].replace(",", ""))
    assert n_lost == pytest.approx(
        1000 * (1 / 27 + 8 / 27), abs=50
    )  # all of the first, or none of it


def test_kappa_score_does_not_look_at_the_working_folder(
    tmp_path, capsys, monkeypatch, drawn_chest
):
    eyes = {f"{patient}_left": patient % 5 for patient in range(20)}
    before = measure(tmp_path, eyes, eyes, capsys)
    (tmp_path / "data").symlink_to(drawn_chest)
    monkeypatch.chdir(tmp_path)
    assert measure(tmp_path, eyes, eyes, capsys) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "trainLabels.csv",
            "image,level\n1_left,0\n12345,1\n",
            r"trainLabels\.csv, row 3: image id '12345' is not",
        ),
        (
            "sampleSubmission.csv",
            "image,level\n1_left,0\n2_up,0\n",
            r"sampleSubmission\.csv, row 3: image id '2_up'",
        ),
        (
            "trainLabels.csv",
            'image,level\n1_left,0\n"2_left',
            r"trainLabels\.csv, row 3: not a CSV table",
        ),
        (
            "trainLabels.csv",
            b"image,level\n1_left,0\n\xff_left,0\n",
            r"trainLabels\.csv, row 3: not a CSV table",
        ),
    ],
)
def test_a_wrong_row_is_named_with_its_file(data, name, content, message):
    (data / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        readers.read_dataset(data)


def test_a_table_of_boxes_with_too_few_columns_is_named_with_its_row(tmp_path):
    (tmp_path / findings.BOXES).write_text("Image Index\n00000001_000.png\n")
    with pytest.raises(InputError, match=r"BBox_List_2017\.csv, row 2: no box of four numbers"):
        findings.read_boxes(tmp_path)


@pytest.mark.parametrize(
    ("given", "name"), [("x.csv", "x"), ("x.html", "x"), ("x.v1", "x.v1"), ("x", "x")]
)
def test_a_name_loses_the_ending_that_it_gets(given, name):
    assert target.parse_name(given) == name


def test_lists_have_the_names_of_the_table_and_absent_findings_are_told(tmp_path, capsys):
    rows = [[f"0000000{n}_000.png", f"{n}", "Hernia" if n == 1 else "Mass"] for n in range(10)]
    table = pd.DataFrame(rows, columns=["Image Index", "Patient ID", "Finding Labels"])
    table.to_csv(tmp_path / "Data_Entry_2017.csv", index=False)
    split.main([f"--data={tmp_path}"])
    told = capsys.readouterr().out
    assert "validation: nobody has Hernia: nothing can be measured of it there" in told
    assert "test: nobody has Hernia" in told and "train: nobody" not in told
    listed = set()
    for name in ("train_val_list.txt", "test_list.txt"):
        listed |= set((tmp_path / name).read_text().split())
    assert listed == set(table["Image Index"])


def test_the_time_of_another_run_is_not_told(tmp_path):
    for name, times_in, elapsed in (("default", None, 1), ("other", tmp_path / "dr/runs/other", 2)):
        (times_in or tmp_path).mkdir(parents=True, exist_ok=True)
        with stage.working(tmp_path, "dr.train", [tmp_path / name], times_in):
            manifest.write_manifest(tmp_path / name, "dr.train", {"elapsed": elapsed}, {}, {})
    assert (
        list(stage.read_times(tmp_path))
        == list(stage.read_times(tmp_path / "dr/runs/other"))
        == ["dr.train"]
    )
    assert (tmp_path / "times.csv").read_text().count("\n") == 1


def test_manifests_have_the_versions_of_what_a_net_may_come_from(tmp_path):
    manifest.write_manifest(tmp_path, "dr.train", {}, {}, {})
    if not find_spec("timm"):
        pytest.skip("timm is not installed")
    assert {"timm", "torchvision", "torch"} <= manifest.read_manifest(tmp_path)["versions"].keys()


@pytest.fixture(scope="module")
def loaded(finished_cache):
    """The ensemble of the finished run."""
    from dr.training import runs

    members = runs.read_members(finished_cache / "dr", None, None)
    return ensemble.load(members, finished_cache / "blend/train/model.pt", None, "cpu")


def test_one_photograph_as_both_eyes_is_doubted(loaded, pair, tmp_path):
    copy = shutil.copy(pair[0], tmp_path / "18_right.jpeg")
    for right, is_copy in ((copy, True), (pair[1], False)):
        with open(pair[0], "rb") as left_file, open(right, "rb") as right_file:
            shown = page.answer(
                loaded, False, {"left": [("a.jpeg", left_file)], "right": [("b.jpeg", right_file)]}
            )
        assert [ensemble.COPY in row["doubts"] for row in shown["rows"]] == [is_copy, is_copy]


def test_two_files_in_the_field_of_one_eye_are_refused(loaded, pair):
    content = pair[0].read_bytes()
    files = [("a.jpeg", io.BytesIO(content)), ("b.jpeg", io.BytesIO(content))]
    with pytest.raises(
        InputError, match="2 photographs of the left eye; give one, or all of them as a folder"
    ):
        page.answer(loaded, False, {"left": files})


def test_float16_that_a_processor_would_emulate_is_float32(monkeypatch, capsys):
    monkeypatch.setattr(device, "is_native", lambda precision, on: precision == "float32")
    assert device.choose_precision("float16", torch.device("cpu")) == "float32"
    assert (
        "this processor would emulate it, many times slower: float32 is taken"
        in capsys.readouterr().out
    )
    monkeypatch.setattr(device, "is_native", lambda precision, on: True)
    assert device.choose_precision("float16", torch.device("cpu")) == "float16"


def test_a_run_without_a_test_set_ends_with_its_nets(run, places, capsys):
    cache = tables.Path(places[1].partition("=")[2])
    shutil.rmtree(tables.Path(places[0].partition("=")[2]) / "test")
    for part in ("crop", "resize", "normalize"):
        shutil.rmtree(cache / part)
    from tests.tiny import prepare

    prepare(tables.Path(places[0].partition("=")[2]), cache)
    run("--epochs=1")
    for name, options in (
        ("dr.predict", ["--views=1", "--epochs-averaged=last:1", "--device=cpu"]),
        ("blend.train", ["--method=linear"]),
        ("blend.predict", []),
        ("kappa.assign", []),
        ("submissions.write", []),
    ):
        importlib.import_module(name).main([*places, *options])
    told = capsys.readouterr().out
    assert "kappa.assign: no test photographs in" in told
    assert "submissions.write: no test images in" in told
