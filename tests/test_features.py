"""Features once: a head learns from a body's maps what it learns from images; where they would differ, is refused."""

import pytest
import torch

from dr.training import checkpoint
from preprocess.disk.errors import InputError
from tests.tiny import SIZE_PX

FROZEN = ["--epochs", 3, "--freeze-epochs", 3, "--flips", "none", "--crop-px", SIZE_PX]


@pytest.mark.parametrize(
    "net",
    [[], ["--squeeze=8", "--hidden=0", "--ema=0.5"], ["--net=test_resnet", "--dropout=0.3"]],
    ids=str,
)
def test_the_head_is_the_same(run, cache, net):
    """Bit for bit; a run that was stopped goes on with the file, and so does another head."""
    if net and "test" in net[0]:
        pytest.importorskip("timm")
    run(*FROZEN, *net)
    assert "has seen 24 images" in run(*FROZEN, *net, "--run=once", "--features=file")
    plain, once = (cache / "dr" / name / "epochs" for name in (".", "runs/once"))
    whole = (once / "0003.pt").read_bytes()
    first, second = (checkpoint.read(epochs / "0003.pt") for epochs in (plain, once))
    assert first.net.keys() == second.net.keys()
    assert all(torch.equal(first.net[name], value) for name, value in second.net.items())
    (once / "0003.pt").write_bytes(b"half")
    assert "has seen" not in run(*FROZEN, *net, "--run=once", "--features=file")
    assert (once / "0003.pt").read_bytes() == whole
    assert "has seen" not in run(
        *FROZEN, *net, "--run=wide", "--features=file", "--learning-rate=0.1"
    )
    assert "has seen" in run(*FROZEN, *net, "--run=other", "--features=file", "--seed=3")


@pytest.mark.parametrize(
    "change",
    ["--freeze-epochs 2", "--flips horizontal", "--shift 0.1", "--zoom 1 1.1", "--crop-px 32"],
)
def test_a_body_that_would_see_something_else_is_refused(run, change):
    with pytest.raises(InputError, match=rf"--features file: .*{change.split()[0]}"):
        run(*FROZEN, "--features=file", *change.split())
