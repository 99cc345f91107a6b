"""Hostile checkpoints, of the net and of the blend: no code in them runs, and each is refused in one line."""

import contextlib
import copy
import dataclasses
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from blend import mlp
from blend import predict as blend_predict
from dr.machine import device
from dr.scores import write_scores
from dr.training import checkpoint, learner
from dr.training.learner import load_net
from preprocess.disk.errors import InputError
from submissions import grade
from tests.tasks import TASK
from tests.tiny import make_settings

RAN = []  # what the code in a hostile file did


def note():
    RAN.append("it ran")


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (note, ())


NET = {  # the content of a checkpoint of dr.train, but for the size of its net
    "epoch": 1,
    "settings": dataclasses.asdict(make_settings(crop_px=32, precision="float32")),
    "task": TASK.describe(),
    "making": {"crop": "adaptive", "size_px": 36, "normalize": "cdf"},
    "prior": [0.2] * 5,
    "mean": [127.0] * 3,
    "std": [60.0] * 3,
    "net": {"weight": torch.zeros(3)},
    "optimizer": {"weight": {"momentum_buffer": torch.zeros(3)}},
    **{"scaler": {}, "n_images": 4, "likeness": {}, "raw": None},
}
BLEND = {
    "format": mlp.FORMAT,
    "fellow_weight": 0.3,
    "nets": [mlp.make_net(10, 5, torch.Generator().manual_seed(0))],
}
KINDS = {"net": (checkpoint.read, NET), "blend": (mlp.load_blend, BLEND)}


def save(path, content):
    torch.save(content, path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.pt"


@pytest.fixture(params=KINDS)
def whole(request, path):
    """A reader, its good checkpoint's content, and the path where it lies."""
    reader, content = KINDS[request.param]
    reader(save(path, content))
    return reader, content, path


def check_refusal(reader, path, message="checkpoint"):
    with pytest.raises(InputError, match=message) as caught:
        reader(path)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)


def test_code_in_a_checkpoint_does_not_run(whole):
    reader, content, path = whole
    for hostile in ({**content, "more": Hostile()}, Hostile(), [Hostile()]):
        check_refusal(reader, save(path, hostile))
        path.write_bytes(pickle.dumps(hostile))
        check_refusal(reader, path)
    assert not RAN
    torch.load(save(path, Hostile()), weights_only=False)
    assert RAN.pop() == "it ran"  # so it would have been noticed


def test_every_cut_and_many_flipped_bits_are_refused_or_read(whole):
    reader, _, path = whole
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        check_refusal(reader, path)
    for position in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            reader(path)


def test_what_is_no_checkpoint_is_refused(whole):
    reader, _, path = whole
    check_refusal(reader, save(path, {"weights": torch.zeros(3)}))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.txt", "no net")
    texts = (
        b"",
        b"rubbish",
        b"PK\x03\x04",
        b"\x80\x04.",
        b"image,level\n1_left,0\n",
        pickle.dumps({"epoch": 1}),
    )
    for content in (path.read_bytes(), *texts):
        path.write_bytes(content)
        check_refusal(reader, path)


NO_NUMBER, NO_TENSOR = [float("nan")] * 3, {"weight": {"momentum_buffer": 7}}
SENSELESS = {  # part of the content -> what is amiss in it; `...` is missing
    "": [
        *(
            ("newer", 1),
            ("settings", None),
            ("epoch", "1"),
            ("task", None),
            ("net", {"weight": 7}),
            ("net", ...),
        ),
        *(
            ("mean", NO_NUMBER),
            ("mean", [127.0] * 2),
            ("std", [0.0, 1.0, 1.0]),
            ("prior", None),
            ("prior", [0.25] * 4),
        ),
        *(("making", None), ("optimizer", [torch.zeros(3)]), ("optimizer", NO_TENSOR)),
    ],
    "settings": [
        *(
            ("attention", True),
            ("crop_px", ...),
            ("crop_px", 10**6),
            ("crop_px", "32"),
            ("dropout", 2.0),
        ),
        *(
            ("net", "hf-hub:any/net"),
            ("seed", None),
            ("pairs", 1),
            ("hidden", 10**9),
            ("drop_path", "0.1"),
            ("zoom", [1.0]),
        ),
    ],
    "task": [("names", ()), ("names", ("mild", 1)), ("kind", 1), ("kind", "sizes")],
    "making": [("size_px", ...), ("size_px", 16), ("crop", "by hand"), ("normalize", ["cdf"])],
}


@pytest.mark.parametrize(
    ("where", "change"), [(where, change) for where in SENSELESS for change in SENSELESS[where]]
)
def test_nets_of_other_versions_or_senseless_content_are_refused(path, where, change):
    content, (name, value) = copy.deepcopy(NET), change
    part = content[where] if where else content
    part[name] = value
    if value is ...:
        del part[name]
    message = (
        "another version of dr.train, which differs in attention"
        if name == "attention"
        else "dr.train.*train"
    )
    check_refusal(checkpoint.read, save(path, content), message)


BLEND_DAMAGES = [
    *(
        {"format": "blend 2"},
        {"fellow_weight": None},
        {"fellow_weight": 2.0},
        {"fellow_weight": "0.5"},
    ),
    *({"nets": {"a": 1}}, {"nets": [7]}, {"nets": [{"weight9": torch.zeros(3)}]}),
    {"nets": [mlp.make_net(12, 5, torch.Generator().manual_seed(0))]},
    *({"nets": [{name: part * torch.nan for name, part in net.items()}]} for net in BLEND["nets"]),
    *({"nets": [{name: part.double() for name, part in net.items()}]} for net in BLEND["nets"]),
]


@pytest.mark.parametrize("damage", BLEND_DAMAGES)
def test_blends_of_other_versions_or_senseless_content_are_refused(path, tmp_path, damage):
    check_refusal(mlp.load_blend, save(path, BLEND | damage), "run python -m blend.train again")
    scores = tmp_path / "scores.csv"
    write_scores(scores, ["1_left"], np.full((1, 5), 0.2), TASK)
    with pytest.raises(InputError, match="run python -m blend.train again"):
        blend_predict.main(
            [f"--scores={scores}", f"--model={path}", f"--out={tmp_path / 'out.csv'}"]
        )


def test_a_checkpoint_of_the_second_edition_still_grades(path, pair, capsys):
    """Its keys and types, written out: what it calls likeness is the summary of the out-of-distribution check."""
    settings = make_settings(crop_px=32, precision="float32")
    untrained = learner.make_learner(settings, TASK, np.arange(5), torch.device("cpu")).net
    names = ("no retinopathy", "mild", "moderate", "severe", "proliferative")
    scale = torch.ones(54)
    content = NET | {
        "task": {"kind": "levels", "names": names},
        "net": untrained.state_dict(),
        "optimizer": {},
        "likeness": {"known": torch.zeros(5, 54), "scale": scale},
    }
    save(path, content)
    grade.main([str(pair[0]), f"--checkpoint={path}", "--views=1", "--device=cpu", "--json"])
    (eye,) = json.loads(capsys.readouterr().out)["eyes"]
    assert sum(eye["scores"]) == pytest.approx(1, abs=1e-5)
    assert eye["unlikeness"] > 0


def test_what_is_read_is_what_was_written_and_other_layers_are_refused(path):
    written = checkpoint.read(save(path, NET))
    first = checkpoint.write(path, written)
    with pytest.raises(InputError, match="the checkpoint: not weights of this net .lacking"):
        load_net(written)
    assert checkpoint.write(path, checkpoint.read(path)) == first
    assert (written.task, written.settings.crop_px, written.making.size_px) == (TASK, 32, 36)


ADDED = (
    "pool",
    "layer_decay",
    "mean",
    "std",
)  # settings that the first checkpoints of this form had not


def test_a_setting_that_a_checkpoint_lacks_takes_the_default_which_does_what_was_done_before(path):
    old = copy.deepcopy(NET)
    for name in ADDED:
        del old["settings"][name]
    kept = checkpoint.read(save(path, old))
    assert kept.settings == checkpoint.read(save(path, NET)).settings
    assert (kept.settings.pool, kept.settings.layer_decay, kept.settings.mean) == (
        "mean",
        1.0,
        None,
    )


def test_a_net_trained_before_a_setting_was_added_is_cached_still(run, cache):
    run("--epochs", 1, "--schedule", "constant")
    kept = cache / "dr" / "epochs" / "manifest.json"
    content = json.loads(kept.read_text())
    for name in ADDED:
        del content["parameters"][name]
    kept.write_text(json.dumps(content))
    assert run("--epochs", 1, "--schedule", "constant") == "dr.train: cached\n"
    assert "goes on after epoch 1" in run("--epochs", 2, "--schedule", "constant")


def test_a_float16_checkpoint_goes_on_in_float32_where_float16_would_be_emulated(
    run, epochs, monkeypatch
):
    """A net trained on a machine that multiplies float16, which goes on on one that does not."""
    options = ["--precision", "float16", "--drop-epochs", 9]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(device, "is_native", lambda *_: True)
        run("--epochs", 1, *options)
    before = checkpoint.read(epochs / "0001.pt")
    assert before.settings.precision == "float16" and before.scaler
    monkeypatch.setattr(device, "is_native", lambda precision, _: precision == "float32")
    told = run("--epochs", 2, *options)
    assert "epoch 1 was trained in float16: this processor would emulate it" in told
    assert "training goes on in float32" in told
    after = checkpoint.read(epochs / "0002.pt")
    assert after.settings.precision == "float32"
    name = "head.outputs.weight"
    assert not torch.equal(after.net[name], before.net[name])
