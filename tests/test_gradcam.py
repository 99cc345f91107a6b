"""Grad-CAM: what an independent slow version gives, where places lie, and what nothing is said of."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dr import explain, gradcam, model
from dr.model import NineConvNet, PairedNet

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE_PX = 64
MAP_PX = (64, 64, 32, 32, 16, 16, 8, 4, 2)  # of the nine blocks before their pooling


@pytest.fixture(scope="module")
def net():
    """A net of normal weights whose BatchNorms have seen some images, so that they do something."""
    net = NineConvNet(IMAGE_PX, dropout=0.0)
    generator = torch.Generator().manual_seed(3)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5, generator=generator)
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(draw_images(8))
    return net.eval()


def draw_images(n, seed=0):
    return torch.randn(n, 3, IMAGE_PX, IMAGE_PX, generator=torch.Generator().manual_seed(seed))


def explain_slowly(net, image, level, block, is_local):
    """Grad-CAM by hooks on a net in the article's order, convolution, BatchNorm, ReLU, max-pool; channel by channel."""
    kept = {}

    def keep(_layer, _given, maps):
        maps.retain_grad()
        kept["maps"] = maps

    layers = []
    for number, (own, (_, is_pooled)) in enumerate(zip(net.blocks, model.CONVOLUTIONS, strict=True)):
        rectify = nn.ReLU()
        if number == block:
            rectify.register_forward_hook(keep)
        layers += [own[0], own[1], rectify] + ([nn.MaxPool2d(3, stride=2, padding=1)] if is_pooled else [])
    ordered = nn.Sequential(*layers, nn.Flatten(), *net.head)
    ordered(image[None])[0, level].backward()
    maps, gradient = kept["maps"][0].detach().numpy(), kept["maps"].grad[0].numpy()
    heat = np.zeros(maps.shape[1:])
    for channel in range(len(maps)):
        heat += maps[channel] * (gradient[channel] if is_local else gradient[channel].mean())
    heat = np.maximum(heat, 0)
    return heat / heat.max() if heat.any() else heat


@pytest.mark.parametrize("is_local", [False, True], ids=["mean", "local"])
@pytest.mark.parametrize("block", [0, 5, 8])
def test_agrees_with_hooks_on_the_articles_order(net, block, is_local):
    """In float64: in float32 rounding turns a ReLU on or off here and there, and its gradient with it."""
    net = copy.deepcopy(net).double()
    images, levels = draw_images(3).double(), np.array([0, 4, 2])
    heat = gradcam.compute_heat(net, images, levels, block, is_local)
    slow = [explain_slowly(net, *each, block, is_local) for each in zip(images, levels, strict=True)]
    np.testing.assert_allclose(heat, slow, rtol=0, atol=1e-9)
    assert heat.any()


def test_each_block_has_its_own_resolution(net):
    images = draw_images(2)
    shapes = [gradcam.compute_heat(net, images, np.array([1, 3]), block).shape for block in range(9)]
    assert shapes == [(2, px, px) for px in MAP_PX]


@pytest.mark.parametrize("layer", explain.LAYERS)
def test_heat_is_from_0_to_1_and_as_large_as_the_image(net, layer):
    heat = gradcam.map_heat(net, draw_images(10), np.arange(10) % 5, layer)
    assert heat.shape == (10, IMAGE_PX, IMAGE_PX)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert set(heat.max(axis=(1, 2)).round(6)) <= {0, 1}  # for some levels nothing may speak
    assert heat.any(axis=(1, 2)).sum() >= 5


def test_explain_offers_the_layers_there_are():
    assert set(explain.LAYERS) == set(gradcam.LAYERS)


def test_an_images_heat_does_not_depend_on_the_others(net):
    net = copy.deepcopy(net).double()
    images, levels = draw_images(gradcam.BATCH_SIZE + 2).double(), np.arange(gradcam.BATCH_SIZE + 2) % 5
    together = gradcam.compute_heat(net, images, levels, 6)
    alone = [gradcam.compute_heat(net, images[row : row + 1], levels[row : row + 1], 6)[0] for row in (0, 17)]
    np.testing.assert_allclose(together[[0, 17]], alone, rtol=0, atol=1e-9)


def test_another_level_has_another_heat(net):
    image = draw_images(1)
    heats = [gradcam.compute_heat(net, image, np.array([level]), 5) for level in range(5)]
    assert all(np.abs(one - other).max() > 0.01 for one in heats for other in heats if one is not other)


def test_without_evidence_there_is_no_heat(net):
    deaf = NineConvNet(IMAGE_PX, dropout=0.0)
    deaf.load_state_dict(net.state_dict())
    nn.init.zeros_(deaf.head[-1].weight)
    for layer in explain.LAYERS:
        assert not gradcam.map_heat(deaf, draw_images(2), np.array([0, 1]), layer).any()


def test_gradients_are_left_alone(net):
    gradcam.compute_heat(net, draw_images(1), np.array([0]), 5)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in net.head[-1].parameters())
    assert not net.training


def test_net_for_both_eyes_takes_each_image_for_its_own_fellow(net):
    paired = PairedNet(IMAGE_PX, dropout=0.0)
    model.initialize_weights(paired, seed=1)
    nn.init.normal_(paired.joint[-1].weight, generator=torch.Generator().manual_seed(0))
    paired.load_state_dict(net.state_dict(), strict=False)
    net, paired = copy.deepcopy(net).double(), paired.double()
    image, level = draw_images(1).double(), np.array([3])
    heat = gradcam.compute_heat(paired, image, level, 5)
    assert np.abs(heat - gradcam.compute_heat(net, image, level, 5)).max() > 0.01
    twice = gradcam.compute_heat(paired, image.repeat(2, 1, 1, 1), level.repeat(2), 5)
    np.testing.assert_allclose(twice, heat.repeat(2, axis=0), rtol=0, atol=1e-9)


# --- where places lie -------------------------------------------------------------------------------------------------


def make_summing_net():
    """A net that only adds up: its heat is the light around each place."""
    net = NineConvNet(IMAGE_PX, dropout=0.0)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)
    return net


@pytest.mark.parametrize(("block", "px"), [(2, 10), (5, 20), (7, 32)])
def test_heat_lies_on_the_pixel_it_comes_from(block, px):
    """The pixel is chosen where a place of the map lies; half a place off would be half a stride."""
    image = torch.zeros(1, 3, IMAGE_PX, IMAGE_PX)
    image[:, :, px, px] = 1
    heat = gradcam.compute_heat(make_summing_net(), image, np.array([0]), block)[0]
    resized = gradcam.resize_heat(heat, block, IMAGE_PX, IMAGE_PX).astype(float)
    near = pytest.approx(px, abs=gradcam.find_stride(block) / 8)
    assert np.average(np.arange(IMAGE_PX), weights=resized.sum(axis=0)) == near
    assert np.average(np.arange(IMAGE_PX), weights=resized.sum(axis=1)) == near


def test_strides():
    assert [gradcam.find_stride(block) for block in range(9)] == [1, 1, 2, 2, 4, 4, 8, 16, 32]


def test_resizing_to_another_size_keeps_edges_aligned():
    heat = np.zeros((8, 8), np.float32)
    heat[2, 5] = 1
    resized = gradcam.resize_heat(heat, 6, IMAGE_PX, 2 * IMAGE_PX)
    assert resized.shape == (128, 128)
    rows, columns = np.nonzero(resized == resized.max())
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == (2 * (16 + 0.5), 2 * (40 + 0.5))


# --- the overlay ------------------------------------------------------------------------------------------------------


def test_cold_places_keep_the_photograph_and_hot_ones_take_colour():
    rgb = np.full((2, 3, 3), (180, 90, 30), np.uint8)
    heat = np.zeros((2, 3), np.float32)
    heat[1, 2] = 1
    blended = gradcam.blend_heat(rgb, heat, strength=1.0)
    assert blended.dtype == np.uint8
    np.testing.assert_array_equal(blended[heat == 0], rgb[heat == 0])
    np.testing.assert_array_equal(blended[1, 2], (255, 0, 255))  # the map's magenta
    half = gradcam.blend_heat(rgb, heat, strength=0.5)
    np.testing.assert_allclose(half[1, 2], (217.5, 45, 142.5), atol=0.5)
