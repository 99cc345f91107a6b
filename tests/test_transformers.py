"""Plain transformers of timm: patch tokens on their grid as maps, pooling, heat, layer decay; the trial of a net."""

import copy

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from dr import train
from dr.machine import trial
from dr.nets import catalog, heat, tokens
from dr.nets.net import find_layer_scales, make_net, split_parameters
from dr.training import checkpoint, learner
from preprocess import __main__ as preprocess
from preprocess.disk.errors import InputError
from tests.tasks import TASK
from tests.tiny import TRAIN_OPTIONS, digest_files, make_settings

timm = pytest.importorskip("timm")

SIDE_PX = 64
FAMILIES = {  # net -> side of its patches
    "test_vit": 16, "test_vit2": 16, "test_vit3": 16, "vit_tiny_patch16_224": 16, "vit_small_patch16_dinov3": 16,
    "eva02_tiny_patch14_224": 14, "cait_xxs24_224": 16, "mixer_s16_224": 16,
}  # fmt: skip


def make(name="test_vit", image_px=SIDE_PX, **options):
    return make_net(name, image_px, 5, 0.0, False, **options).eval()


# --- maps and pooling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_patch_tokens_on_their_grid_are_the_maps(name):
    patch_px = FAMILIES[name]
    image_px = 4 * patch_px
    images = torch.randn(2, 3, image_px, image_px)
    net = make(name, image_px, n_squeezed=8)
    maps = net.body(images)
    assert maps.shape == (2, net.body.n_features, 4, 4)
    output = net.body.model.forward_features(images)
    torch.testing.assert_close(maps[:, :, 1, 2], output[:, -16 + 4 * 1 + 2])
    assert net(images).shape == (2, 5)


TIMMS_POOLING = {
    "test_vit": "token", "test_vit2": "mean", "vit_small_patch16_dinov3": "mean", "eva02_tiny_patch14_224": "mean",
}  # fmt: skip


@pytest.mark.parametrize(("name", "pool"), TIMMS_POOLING.items())
def test_pooled_features_are_timms_own_where_timm_pools_so(name, pool):
    image_px = 4 * FAMILIES[name]
    net = make(name, image_px, pool=pool)
    images = torch.randn(2, 3, image_px, image_px)
    timms = timm.create_model(name, num_classes=0, img_size=image_px).eval()
    timms.load_state_dict(net.body.model.state_dict())
    torch.testing.assert_close(net.body(images)[:, :, 0, 0], timms(images))
    torch.testing.assert_close(net(images), net.head.outputs(timms(images)))


def test_the_mean_is_of_patches_alone_and_the_token_another():
    images = torch.randn(2, 3, SIDE_PX, SIDE_PX)
    mean = make()
    token = make(pool="token")
    output = mean.body.model.forward_features(images)
    torch.testing.assert_close(mean.body(images)[:, :, 0, 0], output[:, 1:].mean(dim=1))
    torch.testing.assert_close(token.body(images)[:, :, 0, 0], output[:, 0])


def test_a_net_whose_record_names_stages_that_it_lacks_is_seen_at_its_last_maps():
    net = make("twins_pcpvt_small", n_squeezed=8)
    assert net.body.grids["fine"] == net.body.grids["last"]
    assert net(torch.randn(1, 3, SIDE_PX, SIDE_PX)).shape == (1, 5)


@pytest.mark.parametrize(
    ("n_tokens", "n_prefix", "expected"),
    [
        (197, 1, (14, 1)),
        (201, 5, (14, 5)),
        (196, None, (14, 0)),
        (197, None, (14, 1)),
        (198, 1, None),
        (2, 1, None),
    ],
)
def test_a_grid_is_a_square_behind_the_tokens_of_no_patch(n_tokens, n_prefix, expected):
    assert tokens.find_grid(n_tokens, n_prefix) == expected


def test_every_token_keeps_its_place_on_the_way_to_maps_and_back():
    output = torch.randn(2, 5 + 12**2, 7)
    maps = tokens.take_maps(output, 7, 5)
    assert torch.equal(maps[1, :, 3, 4], output[1, 5 + 3 * 12 + 4])
    assert torch.equal(tokens.replace_patches(output, 5, maps), output)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crossvit_tiny_240", "gives several outputs for an image .list., not one map"),
        ("pit_ti_224", "gives one vector for an image, and no map of places"),
    ],
)
def test_nets_without_maps_are_refused_by_what_they_are(name, message):
    with pytest.raises(InputError, match=message):
        catalog.check(name, 0.0)


# --- heat -------------------------------------------------------------------------------------------------------------


SEEN = [
    ("test_vit", "mean"), ("test_vit", "token"), ("test_vit2", "mean"), ("eva02_tiny_patch14_224", "token"),
    ("cait_xxs24_224", "token"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "pool"), SEEN)
def test_heat_is_seen_at_tokens_whose_gradients_the_net_computes_itself(name, pool):
    """Against hooks on an ordinary forward pass."""
    image_px = 4 * FAMILIES[name]
    net = make(name, image_px, pool=pool)
    images = torch.randn(2, 3, image_px, image_px)
    for layer in ("last", "fine"):
        activations = net.body.record_activations(images, layer)
        torch.testing.assert_close(activations.features, net.body(images))
        grid = net.body.grids[layer]
        seen = []
        if grid.module:
            module = net.body.model.get_submodule(grid.module)
            hook = module.register_forward_hook(
                lambda _module, _inputs, output, seen=seen: seen.append(output)
            )
            logits = net(images)
            hook.remove()
        else:
            seen.append(net.body.model.forward_features(images))
            logits = net.head(net.body._finish(seen[0]))
        (gradient,) = torch.autograd.grad(logits[:, 3].sum(), seen[0])
        weights = tokens.take_maps(gradient, 0, grid.n_prefix)
        patches = tokens.take_maps(seen[0].detach(), 0, grid.n_prefix)
        if grid.module:
            expected = weights.norm(dim=1) * patches.norm(dim=1)
        else:
            expected = (weights.mean(dim=(2, 3), keepdim=True) * patches).sum(dim=1).relu()
        maps, stride, offset = heat.compute_heat(net, images, np.array([3, 3]), layer)
        np.testing.assert_allclose(maps, heat.scale_heat(expected.numpy()), atol=1e-4)
        assert (stride, offset) == (FAMILIES[name], (FAMILIES[name] - 1) / 2)


def draw_spots(n, rng):
    """Return images of noise, of which every other one has a spot, where it lies, and whether there is one."""
    images = rng.normal(0, 0.3, (n, SIDE_PX, SIDE_PX, 3)).astype(np.float32)
    places = rng.integers(6, SIDE_PX - 6, (n, 2))
    levels = np.arange(n) % 2
    for image, place, level in zip(images, places, levels, strict=True):
        if level:
            cv2.circle(image, place.tolist(), 4, (3.0, 0.0, -3.0), -1)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), places, levels


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_the_hottest_place_of_a_trained_plain_transformer_lies_on_the_spot_that_it_learned_to_see(
    pool,
):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    net = make(pool=pool).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(50):
        images, _, levels = draw_spots(24, rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), torch.from_numpy(levels)).backward()
        optimizer.step()
    images, places, levels = draw_spots(128, rng)
    chosen = np.flatnonzero(levels)
    maps = heat.map_heat(net, images[chosen], np.ones(len(chosen), np.int64), "fine")
    hottest = np.array([np.unravel_index(one.argmax(), one.shape)[::-1] for one in maps])
    is_hit = np.abs(hottest - places[chosen]).max(axis=1) <= 16  # a patch's side
    is_hit_by_chance = np.abs(hottest - np.roll(places[chosen], 1, axis=0)).max(axis=1) <= 16
    assert is_hit.mean() > 0.8
    assert is_hit.mean() > 2 * is_hit_by_chance.mean()


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_plain_transformer_learns_and_goes_on_to_the_same_bytes(run, cache):
    """With its class token, AdamW, layers that learn the slower the earlier, blocks left out by chance."""
    options = (
        "--net test_vit --pool token --optimizer adamw --layer-decay 0.5 --drop-path 0.3".split()
    )
    options += "--learning-rate 1e-3 --mean 0.5 0.5 0.5 --std 0.25 0.25 0.25".split()
    run("--epochs", 2, *options)
    whole = digest_files(cache / "dr")
    (cache / "dr" / "epochs" / "0002.pt").write_bytes(b"half")
    assert "goes on after epoch 1" in run("--epochs", 2, *options)
    assert digest_files(cache / "dr") == whole
    kept = checkpoint.read(cache / "dr" / "epochs" / "0002.pt")
    assert (kept.mean, kept.std, kept.settings.pool) == ([127.5] * 3, [63.75] * 3, "token")


def test_features_of_a_frozen_transformer_are_kept_and_give_the_same_head(places, tmp_path):
    cache = tmp_path / "whole"
    at = [places[0], f"--cache={cache}"]
    preprocess.main([*at, *"--crop whole --size-px 32 --normalize none --jobs 1".split()])
    options = [
        *at,
        *TRAIN_OPTIONS,
        *"--net test_vit --epochs 2 --freeze-epochs 2 --flips none --crop-px 32".split(),
    ]
    train.main(options)
    train.main([*options, "--features", "file", "--run", "kept"])
    values = np.load(cache / "dr" / "features" / "train.npy", mmap_mode="r")
    assert values.shape == (24, 1, 1, 64)
    seen = checkpoint.read(cache / "dr" / "epochs" / "0002.pt").net
    kept = checkpoint.read(cache / "dr" / "runs" / "kept" / "epochs" / "0002.pt").net
    torch.testing.assert_close(kept, seen)
    with pytest.raises(InputError, match="its patches have 16 px; try --crop-px 32 or 48"):
        train.main(
            [*places, *TRAIN_OPTIONS, "--net", "test_vit", "--epochs", "1", "--crop-px", "37"]
        )


def test_layers_learn_the_slower_the_earlier_they_are_and_decay_is_ours():
    settings = make_settings(
        net="test_vit", crop_px=SIDE_PX, precision="float32", layer_decay=0.5, body_rate=0.5
    )
    made = learner.make_learner(settings, TASK, np.arange(5), torch.device("cpu"))
    factors = {}
    decays = {}
    for group in made.optimizer.param_groups:
        for parameter in group["params"]:
            factors[parameter] = group["factor"]
            decays[parameter] = group["weight_decay"]
    body = made.net.body.model
    assert factors[made.net.head.outputs.weight] == 1
    n_blocks = len(body.blocks)
    assert factors[body.norm.weight] == 0.5 * 0.5  # timm has it in the last block's layer
    for number, block in enumerate(body.blocks):
        assert factors[block.attn.qkv.weight] == 0.5 * 0.5 ** (n_blocks - number)
    assert (
        factors[body.patch_embed.proj.weight]
        == factors[body.cls_token]
        == 0.5 * 0.5 ** (n_blocks + 1)
    )
    decayed, _ = split_parameters(made.net)
    assert {parameter for parameter, decay in decays.items() if decay} == set(decayed)
    assert set(factors) == set(made.net.parameters())
    assert find_layer_scales(made.net.body, 1.0) == {}


# --- the trial of a net on this processor -----------------------------------------------------------------------------


class Deadly(nn.Module):
    """A net in whose gradient this version of torch dies with channels last on a processor."""

    image_px = 32

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 48, 1, stride=2)

    def forward(self, images):
        return self.convolution(images)


def die(*_):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGABRT)


def test_a_net_that_kills_its_process_is_found_out_in_another_one(monkeypatch, capfd):
    net = Deadly()
    assert trial.survives(net, torch.contiguous_format)
    monkeypatch.setattr(Deadly, "forward", die)
    before = copy.deepcopy(net.state_dict())
    assert not trial.survives(net, torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert capfd.readouterr().err == ""


def test_a_net_that_does_not_bear_channels_last_trains_without_and_nine_conv_is_never_tried(
    run, cache, monkeypatch
):
    tried = []

    def refuse(net, memory_format):
        tried.append((net.body.name, memory_format))
        return False

    monkeypatch.setattr(trial, "survives", refuse)
    shown = run("--epochs", 1, "--net", "test_resnet")
    assert shown.count("it trains without") == 1
    assert tried == [("test_resnet", torch.channels_last)]
    run("--epochs", 1, "--run", "nine")
    assert len(tried) == 1
    settings = make_settings(net="test_resnet", crop_px=SIDE_PX, precision="float32")
    net = learner.make_learner(settings, TASK, np.arange(5), torch.device("cpu")).net
    seen = []
    net.body.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    net(torch.randn(2, 3, SIDE_PX, SIDE_PX).contiguous(memory_format=torch.channels_last))
    assert seen[0].is_contiguous()


def test_repvgg_trains_on_a_processor(run, cache):
    """Which is one of those in whose gradient torch 2.14.1 dies."""
    run("--epochs", 1, "--net", "repvgg_a0", "--batch-size", 12)
    assert checkpoint.read(cache / "dr" / "epochs" / "0001.pt").epoch == 1
