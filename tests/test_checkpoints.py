"""Hostile checkpoints, of the net and of the blend: no code in them runs, and each is refused in one line."""

import dataclasses
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from blend import mlp
from blend import predict as blend_predict
from dr import checkpoint
from dr.scores import write_scores
from dr.settings import Settings
from preprocess.stage import InputError

RAN = []  # what the code in a hostile file did


def note():
    RAN.append("it ran")


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (note, ())


@pytest.fixture(scope="module")
def net_content():
    """The content of a checkpoint of dr.train, but for the size of its net."""
    settings = dataclasses.asdict(Settings(crop_px=32, precision="float32"))
    tensors = {"weight": torch.zeros(3)}
    shares = {"prior": [0.2] * 5, "mean": [127.0] * 3, "std": [60.0] * 3}
    squares = {"size_px": 36, "crop_method": None}
    return {"epoch": 1, "settings": settings, "net": tensors, "momentum": [torch.zeros(3)], **shares, **squares}


@pytest.fixture(scope="module")
def blend_content():
    """The content of a checkpoint of blend.train."""
    return {"format": mlp.FORMAT, "fellow_weight": 0.3, "nets": [mlp.make_net(10, 5, torch.Generator().manual_seed(0))]}


def save(path, content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.pt"


READERS = {"net": checkpoint.read, "blend": mlp.load_blend}


@pytest.fixture(params=READERS)
def whole(request, path, net_content, blend_content):
    """A reader, its good checkpoint's content, and a path for a bad one."""
    content = {"net": net_content, "blend": blend_content}[request.param]
    READERS[request.param](save(path, content))
    return READERS[request.param], content, path


def check_refusal(reader, path, message):
    with pytest.raises(InputError, match=message) as caught:
        reader(path)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)


def test_code_in_a_checkpoint_does_not_run(whole):
    reader, content, path = whole
    for hostile in ({**content, "more": Hostile()}, Hostile(), [Hostile()]):
        check_refusal(reader, save(path, hostile), "checkpoint")
        path.write_bytes(pickle.dumps(hostile))
        check_refusal(reader, path, "checkpoint")
    assert not RAN
    torch.load(save(path, Hostile()), weights_only=False)
    assert RAN.pop() == "it ran"  # so it would have been noticed


def test_every_cut_and_many_flipped_bits_are_refused_or_read(whole):
    reader, _, path = whole
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        check_refusal(reader, path, "checkpoint")
    for position in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            reader(path)
        except InputError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04", b"\x80\x04.", b"image,level\n1_left,0\n"])
def test_what_is_no_checkpoint_is_refused(whole, content):
    reader, _, path = whole
    path.write_bytes(content)
    check_refusal(reader, path, "checkpoint")


def test_a_zip_of_something_else_is_refused(whole):
    reader, _, path = whole
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.txt", "no net")
    check_refusal(reader, path, "checkpoint")


NET_DAMAGES = {
    "newer version": lambda content: content["settings"].update(attention=True),
    "no settings": lambda content: content.update(settings=None),
    "no crop": lambda content: content["settings"].pop("crop_px"),
    "crop of a million": lambda content: content["settings"].update(crop_px=10**6),
    "crop in words": lambda content: content["settings"].update(crop_px="32"),
    "dropout of 2": lambda content: content["settings"].update(dropout=2.0),
    "no number": lambda content: content.update(mean=[float("nan")] * 3),
    "no deviation": lambda content: content.update(std=[0.0, 1.0, 1.0]),
    "two channels": lambda content: content.update(mean=[127.0] * 2),
    "no prior": lambda content: content.update(prior=None),
    "no tensors": lambda content: content.update(net={"weight": 7}),
    "no net": lambda content: content.pop("net"),
    "no size": lambda content: content.pop("size_px"),
    "squares smaller than crops": lambda content: content.update(size_px=16),
    "unknown crop": lambda content: content.update(crop_method="by hand"),
    "no momentum": lambda content: content.update(momentum={}),
}


@pytest.mark.parametrize("name", NET_DAMAGES)
def test_nets_of_other_versions_or_senseless_content_are_refused(path, net_content, name):
    content = net_content | {"settings": dict(net_content["settings"])}
    NET_DAMAGES[name](content)
    check_refusal(checkpoint.read, save(path, content), "another version" if "newer" in name else "dr.train")


BLEND_DAMAGES = {
    "newer version": {"format": "blend 2"},
    "no weight": {"fellow_weight": None},
    "weight of 2": {"fellow_weight": 2.0},
    "weight in words": {"fellow_weight": "0.5"},
    "nets no list": {"nets": {"a": 1}},
    "net no dict": {"nets": [7]},
    "other layers": {"nets": [{"weight9": torch.zeros(3)}]},
    "other shapes": {"nets": [mlp.make_net(12, 5, torch.Generator().manual_seed(0))]},
    "not finite": {"nets": [{name: part * torch.nan for name, part in mlp.make_net(10, 5, torch.Generator()).items()}]},
    "other numbers": {"nets": [{name: part.double() for name, part in mlp.make_net(10, 5, torch.Generator()).items()}]},
}


@pytest.mark.parametrize("name", BLEND_DAMAGES)
def test_blends_of_other_versions_or_senseless_content_are_refused(path, blend_content, tmp_path, name):
    save(path, blend_content | BLEND_DAMAGES[name])
    check_refusal(mlp.load_blend, path, "run python -m blend.train again")
    scores = tmp_path / "scores.csv"
    write_scores(scores, ["1_left"], np.full((1, 5), 0.2))
    with pytest.raises(InputError, match="run python -m blend.train again"):
        blend_predict.main([f"--scores={scores}", f"--model={path}", f"--out={tmp_path / 'out.csv'}"])


def test_a_net_of_other_layers_is_refused(path, net_content):
    content = checkpoint.read(save(path, net_content))
    with pytest.raises(InputError, match="the checkpoint's weights are not this net's"):
        checkpoint.make_net(content)
