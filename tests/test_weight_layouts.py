"""Weights under the names of those who publish them: each layout is made here under its true key names."""

import argparse
import json
import pathlib

import numpy as np
import pytest
import torch

from dr.nets import layouts, weight_files
from dr.nets.net import make_net
from dr.training import weights
from preprocess.disk.errors import InputError
from tests.test_checkpoints import RAN, Hostile

timm = pytest.importorskip("timm")
safetensors = pytest.importorskip("safetensors.torch")

SIDE_PX = 64
VIT_OWN_PX = 160  # the size of test_vit's own position embeddings
NAMESPACE = argparse.Namespace(
    model="test_resnet", lr=0.1, opt_betas=[0.9, 0.999], resume="", bce=False
)


def make(name="test_resnet", image_px=SIDE_PX, **options):
    return make_net(name, image_px, 5, 0.0, False, **options).eval()


def draw(name, seed=5, **options):
    """Return a net of timm's, all of whose weights and statistics are drawn by a seed, so that no two are alike."""
    generator = torch.Generator().manual_seed(seed)
    model = timm.create_model(name, **options).eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def resnet():
    return draw("test_resnet").state_dict()


@pytest.fixture(scope="module")
def vit():
    return draw("test_vit").state_dict()


def save(path, content):
    torch.save(content, path)
    return str(path)


def add_prefix(tensors, prefix):
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def drop(tensors, *parts):
    return {name: value for name, value in tensors.items() if name.split(".")[0] not in parts}


def zeros(*names):
    return {name: torch.zeros(3) for name in names}


# --- what wraps weights -----------------------------------------------------------------------------------------------

WRAPPED = {  # of a test_resnet
    "timm's train.py": lambda own: {
        "epoch": 3, "arch": "test_resnet", "state_dict": add_prefix(own, "module."), "optimizer": {"state": {}},
        "version": 2, "args": NAMESPACE, "amp_scaler": {"scale": 65536.0}, "metric": 71.5,
    },
    "torch.compile in DDP": lambda own: {"state_dict": add_prefix(own, "module._orig_mod.")},
    "DDP in torch.compile": lambda own: {"model": add_prefix(own, "_orig_mod.module.")},
    "Lightning": lambda own: {
        "epoch": 1, "global_step": 9, "pytorch-lightning_version": "2.4.0", "loops": {}, "callbacks": {},
        "state_dict": add_prefix(own, "model.") | zeros("loss.weight"), "hyper_parameters": {"lr": 3e-5},
    },
    "a segmentation's backbone": lambda own: {"model_state_dict": add_prefix(own, "backbone.") | zeros("decoder.x")},
    "FLAIR": lambda own: add_prefix(drop(own, "fc"), "vision_model.model.") | zeros(
        "vision_model.projection_head_vision.projection.weight", "text_model.model.embeddings.position_ids",
        "text_model.projection_head_text.projection.weight", "logit_scale"),
}  # fmt: skip


LEFT_OUT = {
    "Lightning": "left out: loss (1), fc (2)",
    "a segmentation's backbone": "left out: decoder (1), fc (2)",
    "FLAIR": "left out: vision_model (1), text_model (2), logit_scale (1)",
}


@pytest.mark.parametrize("name", WRAPPED)
def test_weights_are_found_in_what_a_training_script_keeps(name, tmp_path, resnet, capsys):
    net = make()
    channels = weights.begin(net, save(tmp_path / "w.pth", WRAPPED[name](resnet)))
    assert channels == ([127.5] * 3, [127.5] * 3)
    assert all(
        torch.equal(value, resnet[key]) for key, value in net.body.model.state_dict().items()
    )
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2].endswith("drawn anew: the head")
    assert (
        "mean 0.5 0.5 0.5, std 0.5 0.5 0.5; if they were others, give --mean and --std" in shown[-1]
    )
    (left_out,) = [line for line in shown if "left out: " in line]
    assert left_out.endswith(LEFT_OUT.get(name, "left out: fc (2)"))


def test_the_average_of_the_weights_is_taken_where_a_script_keeps_both(tmp_path, resnet, capsys):
    other = {name: value + 1 for name, value in resnet.items()}
    net = make()
    weights.begin(
        net,
        save(
            tmp_path / "w.pth", {"state_dict": other, "state_dict_ema": resnet, "args": NAMESPACE}
        ),
    )
    assert torch.equal(net.body.model.conv1[0].weight, resnet["conv1.0.weight"])
    assert "the average of the weights, state_dict_ema, is taken" in capsys.readouterr().out


def test_a_first_convolution_of_one_channel_sees_grey_alike(tmp_path, resnet, capsys):
    grey = dict(resnet)
    grey["conv1.0.weight"] = resnet["conv1.0.weight"].sum(dim=1, keepdim=True)
    net = make()
    weights.begin(net, save(tmp_path / "w.pth", grey))
    images = torch.randn(2, 1, SIDE_PX, SIDE_PX)
    expected = torch.nn.functional.conv2d(images, grey["conv1.0.weight"], stride=2, padding=1)
    torch.testing.assert_close(net.body.model.conv1[0](images.expand(-1, 3, -1, -1)), expected)
    assert "conv1.0.weight is of one channel, and shared out among three" in capsys.readouterr().out


class Options(argparse.Namespace):
    """A class of somebody's own, which looks harmless."""


HOSTILE = [
    Hostile(),
    argparse.Namespace(hook=Hostile()),
    pathlib.PurePosixPath("x"),
    np.float64(1),
    Options(lr=1),
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda value: type(value).__name__)
def test_a_class_beyond_namespace_is_refused_by_name_and_nothing_runs(hostile, tmp_path, resnet):
    path = tmp_path / "w.pth"
    save(path, {"state_dict": resnet, "args": hostile})
    with pytest.raises(
        InputError, match="not opened: it holds more than weights .*tests|pathlib|numpy"
    ) as refused:
        weights.begin(make(), str(path))
    assert str(path) in str(refused.value) and str(refused.value).isprintable()
    assert not RAN


# --- foundation models ------------------------------------------------------------------------------------------------

DECODER = zeros(
    "mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_embed.bias", "decoder_norm.weight",
    "decoder_blocks.0.attn.qkv.weight", "decoder_blocks.7.mlp.fc2.bias", "decoder_pred.weight", "decoder_pred.bias",
)  # fmt: skip


def chunk(tensors):
    """Return DINOv2's blocks in chunks of three, as its training keeps them."""
    chunked = {}
    for name, value in tensors.items():
        if name.startswith("blocks."):
            number = name.split(".")[1]
            name = f"blocks.{int(number) // 3}.{name.removeprefix('blocks.')}"
        chunked[name] = value
    return chunked


VITS = {
    "RETFound": lambda own: {"model": drop(own, "head") | DECODER, "epoch": 799, "args": NAMESPACE},
    "RETFound, fine-tuned": lambda own: {"model": {
        name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: value for name, value in own.items()
    }},
    "DINO": lambda own: {
        "student": add_prefix(own, "module.backbone."), "epoch": 100, "args": NAMESPACE,
        "teacher": add_prefix(drop(own, "head"), "backbone.") | zeros("head.mlp.0.weight", "head.last_layer.weight_v"),
    },
    "RETFound by DINOv2": lambda own: {"teacher": add_prefix(
        {**chunk(drop(own, "head")), "mask_token": torch.zeros(1, 64)}, "backbone."
    ) | zeros("dino_head.mlp.0.weight", "ibot_head.last_layer.weight_v")},
    "OpenCLIP": lambda own: add_prefix(drop(own, "head"), "visual.trunk.") | zeros("text.token_embedding.weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", VITS)
def test_a_plain_transformers_weights_are_those_of_its_authors_at_their_size(name, tmp_path, vit):
    net = make("test_vit", VIT_OWN_PX)
    weights.begin(net, save(tmp_path / "w.pth", VITS[name](vit)))
    taken = net.body.model.state_dict()
    assert all(torch.equal(value, vit[key]) for key, value in taken.items())


def test_position_embeddings_are_resized_as_timm_does_and_the_class_tokens_stays(tmp_path, vit):
    net = make("test_vit", SIDE_PX)
    weights.begin(net, save(tmp_path / "w.pth", VITS["RETFound"](vit)))
    embedding = net.body.model.pos_embed
    expected = timm.layers.resample_abs_pos_embed(vit["pos_embed"], (4, 4), num_prefix_tokens=1)
    assert embedding.shape == (1, 17, 64)
    torch.testing.assert_close(embedding, expected)


def test_registers_of_dinov2_have_no_position(tmp_path):
    """As Meta keeps them, and RETFound-Green timm's: at another size than the net's own 518 px."""
    name = "vit_small_patch14_reg4_dinov2"
    own = draw(name, img_size=56, num_classes=0).state_dict()
    published = {
        key: value
        for key, value in own.items()
        if key not in ("reg_token", "cls_token", "pos_embed")
    }
    class_position = torch.full((1, 1, 384), 0.25)
    published |= {
        "register_tokens": own["reg_token"], "cls_token": own["cls_token"] - class_position,
        "pos_embed": torch.cat([class_position, own["pos_embed"]], dim=1), "mask_token": torch.zeros(1, 384),
    }  # fmt: skip
    net = make(name, 56)
    weights.begin(net, save(tmp_path / "meta.pth", published))
    for key, value in net.body.model.state_dict().items():
        torch.testing.assert_close(value, own[key])
    weights.begin(make(name, 28), save(tmp_path / "green.pth", own))


# --- torchvision ------------------------------------------------------------------------------------------------------


def see(name, model, images):
    """Return the last maps or tokens of a net of torchvision."""
    if name == "swin_t":
        return model.norm(model.features(images))
    if name == "vit_b_16":
        patches = model._process_input(images)
        return model.encoder(
            torch.cat([model.class_token.expand(len(images), -1, -1), patches], dim=1)
        )
    if name == "resnet18":
        stem = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        return model.layer4(model.layer3(model.layer2(model.layer1(stem))))
    if name == "densenet121":
        return model.features(images).relu()
    return model.features(images)


@pytest.mark.parametrize(
    ("theirs", "ours", "image_px"),
    [
        ("efficientnet_b0", "efficientnet_b0", 32),
        ("convnext_tiny", "convnext_tiny", 32),
        ("swin_t", "swin_tiny_patch4_window7_224", 224),
        ("vit_b_16", "vit_base_patch16_224", 224),
        ("densenet121", "densenet121", 32),
        ("resnet18", "resnet18", 32),
    ],
)
def test_torchvisions_weights_make_of_an_image_what_they_make_there(
    theirs, ours, image_px, tmp_path
):
    torchvision = pytest.importorskip("torchvision")
    model = getattr(torchvision.models, theirs)(weights=None).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases begin at 1 and 0, which hides a swap
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    net = make(ours, image_px)
    weights.begin(net, save(tmp_path / "w.pth", model.state_dict()))
    images = torch.randn(1, 3, image_px, image_px, generator=generator)
    with torch.inference_mode():
        torch.testing.assert_close(
            net.body.model.forward_features(images), see(theirs, model, images)
        )


SAME_LAYERS = {
    "efficientnet_v2_s": "tf_efficientnetv2_s", "convnext_base": "convnext_base", "vgg11": "vgg11",
    "swin_b": "swin_base_patch4_window7_224", "inception_v3": "inception_v3",
}  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), SAME_LAYERS.items())
def test_torchvisions_names_are_timms_once_they_are_renamed(theirs, ours):
    torchvision = pytest.importorskip("torchvision")
    options = {"init_weights": False} if theirs == "inception_v3" else {}
    with torch.device("meta"):
        model = getattr(torchvision.models, theirs)(weights=None, **options)
        net = make(ours, 224)
    fitted = layouts.fit(net.body.model, model.state_dict(), net.body.unused)
    expected = {name: value.shape for name, value in net.body.model.state_dict().items()}
    assert {name: value.shape for name, value in fitted.tensors.items()} == expected


# --- the Hugging Face hub ---------------------------------------------------------------------------------------------


def write_folder(folder, tensors, config):
    folder.mkdir()
    safetensors.save_file(
        {name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


CONFIG = {
    "architecture": "test_resnet",
    "pretrained_cfg": {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]},
}


def test_a_folder_of_the_hub_tells_its_net_and_its_pixels(tmp_path, resnet, capsys):
    folder = write_folder(tmp_path / "hub", resnet, CONFIG)
    net = make()
    mean, std = weights.begin(net, str(folder))
    np.testing.assert_allclose([mean, std], [[102.0] * 3, [51.0] * 3])
    assert (
        "by its config.json, mean 0.4 0.4 0.4, std 0.2 0.2 0.2, where timm's record has mean 0.5"
        in (capsys.readouterr().out)
    )
    assert torch.equal(net.body.model.conv1[0].weight, resnet["conv1.0.weight"])
    with pytest.raises(
        InputError, match="of test_resnet by its config.json, not of --net test_vit"
    ):
        weights.begin(make("test_vit"), str(folder))


def test_an_id_of_the_hub_is_fetched_once_it_is_open_and_else_a_line_says_what_to_fetch(
    tmp_path, resnet, monkeypatch
):
    hub = pytest.importorskip("huggingface_hub")
    folder = write_folder(tmp_path / "hub", resnet, CONFIG)
    monkeypatch.setattr(
        hub, "list_repo_files", lambda _: ["README.md", "config.json", "model.safetensors"]
    )
    monkeypatch.setattr(hub, "hf_hub_download", lambda _, name: str(folder / name))
    assert weight_files.locate("hf-hub:owner/net").digest == weight_files.locate(str(folder)).digest

    def fail(_):
        raise hub.errors.LocalEntryNotFoundError("no way there")

    monkeypatch.setattr(hub, "list_repo_files", fail)
    with pytest.raises(
        InputError, match=r"out of reach.*https://huggingface.co/owner/net and give their folder"
    ):
        weight_files.locate("hf-hub:owner/net")
    with pytest.raises(InputError, match="an id of the hub is"):
        weight_files.locate("hf-hub:net")


def test_a_folder_without_weights_or_with_several_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no weights"):
        weight_files.locate(str(tmp_path))
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"several files of weights \(a.pth, b.pth\)"):
        weight_files.locate(str(tmp_path))
