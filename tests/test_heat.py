"""Grad-CAM: agreement with an independent slow version, the places of heat, and a paired head."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dr.nets import heat
from dr.nets.net import initialize_weights, make_net
from dr.nets.nine_conv import CONVOLUTIONS, LAST

IMAGE_PX = 64


@pytest.fixture(scope="module")
def net():
    """A net of normal weights whose BatchNorms have seen some images, so that they do something."""
    net = make_net("nine-conv", IMAGE_PX, 5, 0.0, is_paired=False)
    generator = torch.Generator().manual_seed(3)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(
                layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5, generator=generator
            )
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

    def keep(_layer, _inputs, maps):
        maps.retain_grad()
        kept["maps"] = maps

    layers = []
    for number, (_, is_pooled) in enumerate(CONVOLUTIONS):
        convolution, norm, *_ = net.body.blocks[number]
        rectify = nn.ReLU()
        if number == block:
            rectify.register_forward_hook(keep)
        layers += [convolution, norm, rectify]
        if is_pooled:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    ordered = nn.Sequential(*layers, nn.Flatten(), net.head.hidden, net.head.outputs)
    ordered(image[None])[0, level].backward()
    maps = kept["maps"][0].detach().numpy()
    gradients = kept["maps"].grad[0].numpy()
    total = np.zeros(maps.shape[1:])
    for channel, gradient in zip(maps, gradients, strict=True):
        total += channel * (gradient if is_local else gradient.mean())
    total = np.maximum(total, 0)
    return total / total.max() if total.any() else total


@pytest.mark.parametrize(
    ("layer", "block", "is_local"),
    [("last", LAST, False), ("fine", 5, True), (0, 0, True), (5, 5, True), (8, 8, True)],
)
def test_agrees_with_hooks_on_the_articles_order(net, layer, block, is_local, monkeypatch):
    """In float64: in float32 rounding turns a ReLU on or off here and there, and its gradient with it."""
    monkeypatch.setattr(heat, "BATCH_SIZE", 2)
    net = copy.deepcopy(net).double().train()
    images = draw_images(3).double()
    levels = np.array([0, 4, 2])
    maps, *_ = heat.compute_heat(net, images, levels, layer)
    assert not net.training
    assert all(
        parameter.grad is None or not parameter.grad.any()
        for parameter in net.head.outputs.parameters()
    )
    slow = [explain_slowly(net, images[row], levels[row], block, is_local) for row in range(3)]
    np.testing.assert_allclose(maps, slow, rtol=0, atol=1e-9)
    assert maps.any()


def test_net_for_both_eyes_takes_each_image_for_its_own_fellow(net):
    paired = make_net("nine-conv", IMAGE_PX, 5, 0.0, is_paired=True)
    initialize_weights(paired, seed=1)
    nn.init.normal_(paired.head.joint[-1].weight, generator=torch.Generator().manual_seed(0))
    paired.load_state_dict(net.state_dict(), strict=False)
    paired = paired.double()
    image = draw_images(1).double()
    level = np.array([3])
    single, *_ = heat.compute_heat(copy.deepcopy(net).double(), image, level, 5)
    alone, *_ = heat.compute_heat(paired, image, level, 5)
    assert np.abs(alone - single).max() > 0.01
    twice, *_ = heat.compute_heat(paired, image.repeat(2, 1, 1, 1), level.repeat(2), 5)
    np.testing.assert_allclose(twice, alone.repeat(2, axis=0), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("block", "px"), [(2, 10), (5, 20), (7, 32)])
def test_heat_lies_on_the_pixel_it_comes_from(block, px):
    """In a net that only adds up; the pixel lies on a location of the map: half a location off is half a stride."""
    net = make_net("nine-conv", IMAGE_PX, 5, 0.0, is_paired=False)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)
    image = torch.zeros(1, 3, IMAGE_PX, IMAGE_PX)
    image[:, :, px, px] = 1
    activations = net.eval().body.record_activations(image, block)
    (light,) = heat.scale_heat(
        activations.maps.detach().sum(dim=1).numpy()
    )  # what Grad-CAM's mean weights make of it
    placed = heat.upsample_heat(light, activations.stride, IMAGE_PX).astype(float)
    for axis in (0, 1):
        middle = np.average(np.arange(IMAGE_PX), weights=placed.sum(axis=axis))
        assert middle == pytest.approx(px, abs=activations.stride / 8)
