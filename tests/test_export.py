"""dr.export: weights come back as they went, halves are nearly the same, and what cannot be written is refused.

That an ONNX file gives the scores of dr.predict, for every recipe: tests/test_road.py.
"""

import json
import shutil

import numpy as np
import pytest
import torch

from dr import export, predict
from dr.scores import read_scores
from dr.training import checkpoint, weights
from dr.training.learner import load_net
from preprocess.disk.errors import InputError
from tests import test_readme
from tests.tasks import TASK

onnx = pytest.importorskip("onnx")


@pytest.fixture
def trained(places, run):
    """The options of dr.export for a net of two epochs that has scored its squares."""
    run("--epochs", 2)
    predict.main([*places, *"--views 2 --device cpu".split()])
    return places


def test_a_file_says_what_it_wants_and_a_card_how_good_it_is(trained, tmp_path, capsys):
    export.main([*trained, f"--out={tmp_path}/net.onnx"])
    assert "scores off by" in capsys.readouterr().out
    told = json.loads((tmp_path / "net.json").read_text())
    model = onnx.load(tmp_path / "net.onnx")
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == told
    assert told["input"]["shape"] == ["n", 37, 37, 3]
    assert [(net["epoch"], net["views"]) for net in told["nets"]] == [(1, 2), (2, 2)]
    card = (tmp_path / "net.md").read_text()
    assert "On 6 images" in card and "| qwk |" in card and "not a medical device" in card


def test_a_card_has_operating_points_of_the_images_held_out_and_lines_to_fill_by_hand(
    trained, tmp_path
):
    export.main([*trained, f"--out={tmp_path}/net.onnx"])
    card = (tmp_path / "net.md").read_text()
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == [
        f"## {word}"
        for word in (
            "Intended use",
            "Population",
            "Reference standard",
            "Figures",
            "Operating points",
            "Limits",
            "Oversight",
        )
    ]
    assert "24 labelled images of 12 patients" in card and card.count("(to fill by hand)") == 10
    assert "guessing by frequency" in card and "chosen on fewer than 10 positives" in card
    points = json.loads((tmp_path / "net.json").read_text())["operating_points"]
    rows = [line for line in card.splitlines() if line.startswith("| referable")]
    for row, point in zip(rows, points["referable (≥ 2)"], strict=True):
        assert f"| {point['name']} | " in row and f"| {point['positives']} |" in row
        assert point["decides"] is False and " * |" in row  # of six images


def test_halves_are_half_as_large_and_say_nearly_the_same(trained, tmp_path):
    for name in ("whole", "half"):
        export.main([*trained, *["--half"] * (name == "half"), f"--out={tmp_path}/{name}.onnx"])
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "half")]
    assert 0.4 < sizes[1] / sizes[0] < 0.6


def test_a_paired_net_tells_that_it_wants_to_know_whose_eyes_there_are(
    places, cache, run, tmp_path
):
    run("--epochs", 1, "--pairs")
    export.main(
        [f"--checkpoint={cache}/dr/epochs/0001.pt", "--views=1", f"--out={tmp_path}/net.onnx"]
    )
    told = json.loads((tmp_path / "net.json").read_text())
    assert [given.name for given in onnx.load(tmp_path / "net.onnx").graph.input] == [
        "squares",
        told["eyes"]["name"],
    ]


def test_what_says_something_else_is_not_written(trained, tmp_path, monkeypatch):
    def spoil(model):
        for tensor in model.graph.initializer:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name)
            )

    monkeypatch.setattr(export, "halve", spoil)
    with pytest.raises(InputError, match="not written: its scores would differ"):
        export.main([*trained, "--half", f"--out={tmp_path}/net.onnx"])
    assert not list(tmp_path.glob("*net*"))


@pytest.mark.parametrize("half", [[], ["--half"]])
def test_training_goes_on_from_exported_weights(trained, cache, run, tmp_path, half):
    path, epoch = tmp_path / "net.safetensors", cache / "dr" / "epochs" / "0002.pt"
    export.main([f"--checkpoint={epoch}", f"--out={path}", *half])
    of = checkpoint.read(epoch)
    begun = load_net(of)
    for parameter in begun.parameters():
        torch.nn.init.zeros_(parameter)
    assert weights.begin(begun, path) == (pytest.approx(of.mean), pytest.approx(of.std))
    for name, value in begun.state_dict().items():
        torch.testing.assert_close(
            value, of.net[name], rtol=1e-3 if half else 0, atol=1e-6 if half else 0
        )


def test_a_weight_beyond_float16_is_refused():
    with pytest.raises(InputError, match="a weight of body.x is beyond float16's range"):
        export.check_half(np.array([1e5], np.float32), "body.x")


def test_no_description_is_missing_or_anothers(trained, drawn_scans, tmp_path):
    with pytest.raises(InputError):
        export.main([*trained, f"--data={drawn_scans}", f"--out={tmp_path}/net.onnx"])
    assert not list(tmp_path.glob("net*"))
    (tmp_path / "net.onnx").touch()
    with pytest.raises(
        InputError, match=r"net.onnx has the .json and .md of this name; give another"
    ):
        export.main([*trained, f"--out={tmp_path}/net.safetensors"])


def test_several_nets_are_no_weights_and_other_names_no_files(trained, tmp_path):
    with pytest.raises(InputError, match="the weights of one net, not of 2"):
        export.main([*trained, f"--out={tmp_path}/net.safetensors"])
    with pytest.raises(InputError, match=r"ends in none of \.onnx, \.safetensors"):
        export.main([*trained, f"--out={tmp_path}/net.pt"])


def test_the_programs_of_the_manual_give_an_exported_nets_scores(
    drawn_folder, finished_cache, pair, tmp_path, monkeypatch
):
    """One imports this project and takes a photograph, the other needs NumPy and Pillow alone and takes its square."""
    monkeypatch.chdir(tmp_path)
    export.main([f"--data={drawn_folder}", f"--cache={finished_cache}", "--out=net.onnx"])
    shutil.copy(pair[0], "eye.jpeg")
    shutil.copy(finished_cache / "resize" / "test" / f"{pair[0].stem}.png", "square.png")
    manual = (test_readme.ROOT / "dr" / "README.md").read_text()
    of_a_photograph, of_a_square = test_readme.list_blocks(manual, "python")
    assert "preprocess" not in of_a_square
    given = []
    for program in (of_a_photograph, of_a_square):
        names = {}
        exec(program, names)  # noqa: S102  as the reader would
        given.append(names["scores"])
    np.testing.assert_array_equal(given[0], given[1])
    scores = read_scores(finished_cache / "dr" / "scores_test.csv", TASK)
    expected = scores.loc[pair[0].stem].to_numpy()
    np.testing.assert_allclose(given[0][0], expected, atol=1e-4)
