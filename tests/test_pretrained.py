"""Nets of timm: their maps and locations, their initial weights, and training with one; none is ever downloaded."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from dr.machine.batch_norm import connect
from dr.nets import catalog, heat
from dr.nets.net import make_net
from dr.nets.pretrained import Pretrained
from dr.training import checkpoint, weights
from preprocess.disk import files
from preprocess.disk.errors import InputError
from tests.test_checkpoints import RAN, Hostile
from tests.tiny import digest_files

timm = pytest.importorskip("timm")
safetensors = pytest.importorskip("safetensors.torch")


NET = "test_resnet"  # 0.47 million parameters, made for tests
SMALL = [f"--net={NET}", "--drop-path=0", "--dropout=0"]


def make(name=NET, image_px=64, is_paired=False, n_hidden=None, seed=0):
    return make_net(name, image_px, 5, 0.0, is_paired, n_hidden, seed=seed).eval()


@pytest.fixture
def foreign(tmp_path):
    """The weights of a test_resnet as timm keeps them, with a classifier of 1,000 classes; drawn by another seed."""
    torch.manual_seed(5)
    return timm.create_model(NET).state_dict()


def save(path, tensors):
    if path.suffix == ".safetensors":
        safetensors.save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [NET, "test_efficientnet", "test_convnext", "swin_tiny_patch4_window7_224"]
)
def test_any_hierarchical_net_gives_maps_averaged_over_their_locations(name):
    net = make(name)
    images = torch.randn(2, 3, 64, 64)
    maps = net.body(images)
    assert maps.shape == (2, net.body.n_features, net.body.maps_px, net.body.maps_px)
    torch.testing.assert_close(net(images), net.head.outputs(maps.mean(dim=(2, 3))))
    for layer, least_px in (("last", 2), ("fine", 8)):
        activations = net.body.record_activations(images, layer)
        assert (
            activations.maps.shape[2]
            == activations.maps.shape[3]
            >= least_px
            == 64 // activations.stride
        )
        torch.testing.assert_close(activations.features, maps)
    assert not torch.is_grad_enabled() or activations.maps.requires_grad


@pytest.mark.parametrize("name", [NET, "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("layer", ["last", "fine"])
def test_locations_lie_in_the_middle_of_their_receptive_fields(name, layer):
    """Against the centre of the gradient of a location in the middle, over some noise."""
    image_px = 256
    net = make(name, image_px)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # some begin at 0, and with it all but the shortcuts
    grid = net.body.grids[layer]
    outputs = []
    module = net.body.model.get_submodule(grid.module)
    module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    images = torch.randn(
        4, 3, image_px, image_px, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    last = net.body(images)
    maps = outputs[0] if grid.module else last
    index = maps.shape[-1] // 2
    (gradient,) = torch.autograd.grad((maps[:, :, index, index] ** 2).sum(), images)
    weight = (gradient**2).sum(dim=(0, 1))
    expected = grid.stride * index + grid.offset
    for axis in (0, 1):
        middle = np.average(np.arange(image_px), weights=weight.sum(dim=axis))
        assert middle == pytest.approx(expected, abs=grid.stride / 3)


def test_grad_cam_of_the_last_maps_is_the_outputs_weights_times_the_maps():
    net = make()
    images = torch.randn(2, 3, 64, 64)
    maps, stride, _ = heat.compute_heat(net, images, np.array([1, 3]), "last")
    expected = (
        torch.einsum("nchw,nc->nhw", net.body(images), net.head.outputs.weight[[1, 3]])
        .relu()
        .detach()
        .numpy()
    )
    assert stride == 32
    np.testing.assert_allclose(maps, heat.scale_heat(expected), atol=1e-5)


def test_random_weights_depend_on_the_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(3)
    first, same, other = (
        Pretrained(NET, 64, 0.0, seed).model.conv1[0].weight for seed in (1, 1, 2)
    )
    after = torch.rand(1)
    assert torch.equal(first, same) and not torch.equal(first, other)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_a_body_keeps_nothing_of_its_classifier():
    assert not [
        name for name in make("test_convnext").state_dict() if name.startswith("body.model.head")
    ]
    assert make(is_paired=True).head.joint[0].in_features == 2 * make().body.n_features


def test_batch_norm_of_several_processes_keeps_what_timms_layer_does(monkeypatch):
    net = make_net("test_efficientnet", 64, 5, 0.0, False, n_squeezed=8).eval()
    images = torch.randn(4, 3, 64, 64)
    expected = net(images)
    is_learned = [parameter.requires_grad for parameter in net.parameters()]
    monkeypatch.setattr("dr.machine.workers.count", lambda: 2)
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", lambda net, **_: net)
    torch.testing.assert_close(connect(net, torch.device("cpu"), False).eval()(images), expected)
    assert not [layer for layer in net.modules() if type(layer).__name__ == "BatchNormAct2d"]
    assert [parameter.requires_grad for parameter in net.parameters()] == is_learned
    assert not all(is_learned)


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_weights_of_timm_and_torchvision_are_taken_with_the_mean_and_std_of_their_images(
    tmp_path, foreign, name
):
    net = make()
    channels = weights.begin(net, save(tmp_path / name, foreign))
    assert channels == ([127.5] * 3, [127.5] * 3)  # test_resnet's configuration
    assert all(
        torch.equal(value, foreign[key]) for key, value in net.body.model.state_dict().items()
    )
    wrapped = {f"module.{key}": value for key, value in foreign.items() if "num_batches" not in key}
    again = make(seed=1)
    weights.begin(again, save(tmp_path / "w.pth", {"state_dict": wrapped, "epoch": 3}))
    assert torch.equal(again.body.model.conv1[0].weight, foreign["conv1.0.weight"])


def damage(path, foreign):
    """Files that are no weights of a test_resnet, each with its message."""
    narrow = foreign | {"conv1.0.weight": torch.zeros(8, 3, 3, 3)}
    lacking = {name: value for name, value in foreign.items() if name != "conv1.0.weight"}
    yield save(path / "narrow.pth", narrow), r"of another shape: conv1.0.weight"
    yield save(path / "lacking.safetensors", lacking), "lacking: conv1.0.weight"
    yield (
        save(path / "more.pth", foreign | {"conv9.weight": torch.zeros(3)}),
        "unknown: conv9.weight",
    )
    yield save(path / "hostile.pth", foreign | {"conv9.weight": Hostile()}), "or a damaged one"
    yield save(path / "list.pth", [torch.zeros(3)]), "holds no weights"
    yield save(path / "number.pth", foreign | {"conv1.0.weight": 7}), "no tensor"
    for name in ("narrow.pth", "lacking.safetensors"):
        content = (path / name).read_bytes()
        (path / f"torn_{name}").write_bytes(content[: len(content) // 2])
        yield path / f"torn_{name}", "damaged one"


def test_what_does_not_fit_is_refused_with_the_tensors_and_no_code_runs(tmp_path, foreign):
    for path, message in damage(tmp_path, foreign):
        with pytest.raises(InputError, match=message) as caught:
            weights.begin(make(), path)
        assert str(path) in str(caught.value) and str(caught.value).isprintable()
    assert not RAN


def test_a_hub_out_of_reach_is_one_line_that_names_the_file(monkeypatch):
    def fail(*_, **options):
        assert options["pretrained"]
        raise FileNotFoundError("no way there")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        InputError,
        match=r"huggingface.co/timm/test_resnet.r160_in1k/.*safetensors and give --weights",
    ):
        catalog.download(NET, 64)


REFUSED = {
    "--net resnet5": "no such net .near: .*resnet50",
    "--net resnet50.a9": "no such weights .*a1_in1k",
    "--net pit_ti_224": "gives one vector",
    "--net coat_tiny": "gives several outputs for an image .list., not one map",
    "--net test_resnet --pool token": "test_resnet has no class token",
    "--net vit_base_patch16_siglip_224 --pool token": "has no class token",
    "--pool token": "nine-conv has no class token",
    "--net test_vit --pool token --squeeze 8": "nothing is pooled",
    "--net vit_small_patch14_dinov2": "its patches have 14 px; try --crop-px 28 or 42",
    "--layer-decay 0.5": "is for nets of timm",
    "--mean 0.5 0.5 0.5": "--mean and --std: give both",
    "--mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 --inputs 0-1": "has no meaning with --inputs",
    "--weights gone.pth": "no such file",
    "--net inception_v3": "images of 32 px do not fit",
    "--net vgg11 --drop-path 0.1": "vgg11 has no paths to drop",
    "--weights imagenet": "none for nine-conv",
    "--net resnet10t.untrained --weights imagenet": "no such weights",
    "--drop-path 0.1": "nine-conv has no paths",
    "--warm-up-epochs 1": "of --schedule cosine",
    "--optimizer adamw --nesterov": "knows no --nesterov",
    "--log-loss 0": "needs a --squared-error",
}


def test_unfit_nets_and_options_are_refused_in_a_line(run):
    for options, message in REFUSED.items():
        with pytest.raises(InputError, match=message):
            run("--epochs", 1, *options.split())


def test_without_timm_the_line_has_the_command_and_nine_conv_needs_none():
    code = """if True:
        import sys
        sys.modules["timm"] = None
        from dr.nets import catalog
        from preprocess.disk.errors import InputError
        catalog.check("nine-conv", 0.0)
        try: catalog.check("resnet50", 0.0)
        except InputError as error: print(error)"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.count("\n") == 1 and f"-m pip install -r {catalog.REQUIREMENTS}" in shown


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_begins_with_weights_and_both_eyes_with_a_single_net(
    run, cache, tmp_path, foreign
):
    """tests/test_road.py follows such a net to its scores."""
    path = save(tmp_path / "w.safetensors", foreign)
    run("--epochs", 2, *SMALL, "--weights", path, "--freeze-epochs", 1)
    single = cache / "dr" / "epochs" / "0002.pt"
    first, second = (checkpoint.read(single.parent / f"000{epoch}.pt") for epoch in (1, 2))
    assert (first.mean, first.settings.weights) == ([127.5] * 3, files.hash_file(path))
    assert torch.equal(first.net["body.model.bn1.running_mean"], foreign["bn1.running_mean"])
    assert not torch.equal(second.net["body.model.conv1.0.weight"], foreign["conv1.0.weight"])
    run(
        "--epochs", 1, *SMALL, "--run", "both", "--pairs", "--weights", single, "--learning-rate", 0
    )
    both = checkpoint.read(cache / "dr/runs/both/epochs/0001.pt")
    assert torch.equal(both.net["head.outputs.weight"], second.net["head.outputs.weight"])
    assert both.mean == second.mean


def test_a_head_of_another_size_is_left_out(run, cache, tmp_path):
    run("--epochs", 1, *SMALL)
    kept = cache / "dr" / "epochs" / "0001.pt"
    printed = run(
        "--epochs",
        1,
        *SMALL,
        "--run",
        "wide",
        "--hidden",
        7,
        "--weights",
        kept,
        "--learning-rate",
        0,
    )
    assert "its head is another, and left out" in printed
    wide = checkpoint.read(cache / "dr/runs/wide/epochs/0001.pt")
    assert wide.net["head.hidden.0.weight"].shape[0] == 7
    name = "body.model.conv1.0.weight"
    assert torch.equal(wide.net[name], checkpoint.read(kept).net[name])


def test_training_that_was_cut_off_goes_on_to_the_same_bytes(run, cache):
    """Blocks left out by chance, AdamW, an average of the weights, a frozen epoch and both eyes, all at once."""
    options = (
        f"--net={NET} --optimizer adamw --drop-path 0.5 --ema 0.5 --freeze-epochs 1 --pairs".split()
    )
    run("--epochs", 3, *options)
    whole = digest_files(cache / "dr")
    (cache / "dr" / "epochs" / "0003.pt").write_bytes(b"half")
    torch.manual_seed(99)
    assert "goes on after epoch 2" in run("--epochs", 3, *options)
    assert digest_files(cache / "dr") == whole
    run("--epochs", 3, *options, "--drop-path", 0, "--run", "all")
    assert (
        digest_files(cache / "dr/runs/all/epochs")["0001.pt"] != whole["epochs/0001.pt"]
    )  # settings differ
    first, second = (
        checkpoint.read(cache / name / "0002.pt").net
        for name in ("dr/epochs", "dr/runs/all/epochs")
    )
    assert not torch.equal(first["head.outputs.weight"], second["head.outputs.weight"])
