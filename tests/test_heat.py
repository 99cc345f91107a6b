"""Grad-CAM: what an independent slow version gives, where places lie, and what nothing is said of."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dr import explain
from dr.nets import heat
from dr.nets.net import initialize_weights, make_net
from dr.nets.nine_conv import CONVOLUTIONS, LAST

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE_PX = 64


@pytest.fixture(scope="module")
def net():
    """A net of normal weights whose BatchNorms have seen some images, so that they do something."""
    net = make_net("nine-conv", IMAGE_PX, 5, 0.0, is_paired=False)
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
    for number, (own, (_, is_pooled)) in enumerate(zip(net.body.blocks, CONVOLUTIONS, strict=True)):
        rectify = nn.ReLU()
        if number == block:
            rectify.register_forward_hook(keep)
        layers += [own[0], own[1], rectify] + ([nn.MaxPool2d(3, stride=2, padding=1)] if is_pooled else [])
    ordered = nn.Sequential(*layers, nn.Flatten(), net.head.hidden, net.head.outputs)
    ordered(image[None])[0, level].backward()
    maps, gradient = kept["maps"][0].detach().numpy(), kept["maps"].grad[0].numpy()
    total = sum(own * (steep if is_local else steep.mean()) for own, steep in zip(maps, gradient, strict=True))
    total = np.maximum(total, 0)
    return total / total.max() if total.any() else total


@pytest.mark.parametrize(
    ("layer", "block", "is_local"), [("last", LAST, False), ("fine", 5, True), *((n, n, True) for n in (0, 5, 8))]
)
def test_agrees_with_hooks_on_the_articles_order(net, layer, block, is_local):
    """In float64: in float32 rounding turns a ReLU on or off here and there, and its gradient with it."""
    net = copy.deepcopy(net).double()
    images, levels = draw_images(3).double(), np.array([0, 4, 2])
    maps, _ = heat.compute_heat(net, images, levels, layer)
    slow = [explain_slowly(net, *each, block, is_local) for each in zip(images, levels, strict=True)]
    np.testing.assert_allclose(maps, slow, rtol=0, atol=1e-9)
    assert maps.any()


@pytest.mark.parametrize("layer", explain.LAYERS)
def test_heat_is_from_0_to_1_and_as_large_as_the_image(net, layer):
    seen = heat.map_heat(net, draw_images(10), np.arange(10) % 5, layer)
    assert seen.shape == (10, IMAGE_PX, IMAGE_PX)
    assert seen.dtype == np.float32
    assert seen.min() >= 0
    assert set(seen.max(axis=(1, 2)).round(6)) <= {0, 1}  # for some levels nothing may speak
    assert seen.any(axis=(1, 2)).sum() >= 5
    deaf = copy.deepcopy(net)
    nn.init.zeros_(deaf.head.outputs.weight)
    assert not heat.map_heat(deaf, draw_images(2), np.array([0, 1]), layer).any()  # without evidence there is none


def test_an_images_heat_depends_on_its_level_and_not_on_the_other_images(net):
    heats = [heat.compute_heat(net, draw_images(1), np.array([level]), 5)[0] for level in range(5)]
    assert all(np.abs(one - other).max() > 0.01 for one in heats for other in heats if one is not other)
    net, n = copy.deepcopy(net).double(), heat.BATCH_SIZE + 2
    images, levels = draw_images(n).double(), np.arange(n) % 5
    together, _ = heat.compute_heat(net, images, levels, 6)
    alone = [heat.compute_heat(net, images[[row]], levels[[row]], 6)[0][0] for row in (0, 17)]
    np.testing.assert_allclose(together[[0, 17]], alone, rtol=0, atol=1e-9)


def test_each_block_has_its_own_resolution_and_stride_and_gradients_are_left_alone(net):
    net.train()
    made = [heat.compute_heat(net, draw_images(2), np.array([1, 3]), block) for block in range(9)]
    strides = [1, 1, 2, 2, 4, 4, 8, 16, 32]
    assert [stride for _, stride in made] == strides
    assert [maps.shape for maps, _ in made] == [(2, IMAGE_PX // stride, IMAGE_PX // stride) for stride in strides]
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in net.head.outputs.parameters())
    assert not net.training


def test_net_for_both_eyes_takes_each_image_for_its_own_fellow(net):
    paired = make_net("nine-conv", IMAGE_PX, 5, 0.0, is_paired=True)
    initialize_weights(paired, seed=1)
    nn.init.normal_(paired.head.joint[-1].weight, generator=torch.Generator().manual_seed(0))
    paired.load_state_dict(net.state_dict(), strict=False)
    net, paired = copy.deepcopy(net).double(), paired.double()
    image, level = draw_images(1).double(), np.array([3])
    own, _ = heat.compute_heat(paired, image, level, 5)
    assert np.abs(own - heat.compute_heat(net, image, level, 5)[0]).max() > 0.01
    twice, _ = heat.compute_heat(paired, image.repeat(2, 1, 1, 1), level.repeat(2), 5)
    np.testing.assert_allclose(twice, own.repeat(2, axis=0), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("block", "px"), [(2, 10), (5, 20), (7, 32)])
def test_heat_lies_on_the_pixel_it_comes_from(block, px):
    """In a net that only adds up, whose maps are the light around each place.

    The pixel is chosen where a place of the map lies; half a place off would be half a stride.
    """
    net = make_net("nine-conv", IMAGE_PX, 5, 0.0, is_paired=False)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)
    image = torch.zeros(1, 3, IMAGE_PX, IMAGE_PX)
    image[:, :, px, px] = 1
    seen = net.eval().body.look(image, block)
    (light,) = heat.scale_heat(seen.maps.detach().sum(dim=1).numpy())  # what Grad-CAM's mean weights make of it
    placed = heat.place_heat(light, seen.stride, IMAGE_PX).astype(float)
    for axis in (0, 1):
        middle = np.average(np.arange(IMAGE_PX), weights=placed.sum(axis=axis))
        assert middle == pytest.approx(px, abs=seen.stride / 8)


def test_cold_places_keep_the_photograph_and_hot_ones_take_colour():
    rgb = np.full((2, 3, 3), (180, 90, 30), np.uint8)
    hot = np.zeros((2, 3), np.float32)
    hot[1, 2] = 1
    blended = heat.blend_heat(rgb, hot, strength=1.0)
    assert blended.dtype == np.uint8
    np.testing.assert_array_equal(blended[hot == 0], rgb[hot == 0])
    np.testing.assert_array_equal(blended[1, 2], (255, 0, 255))  # the map's magenta
    half = heat.blend_heat(rgb, hot, strength=0.5)
    np.testing.assert_allclose(half[1, 2], (217.5, 45, 142.5), atol=0.5)
