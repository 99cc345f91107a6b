"""The net: the article's numbers, and what dropout, L2 and prediction leave alone."""

import copy

import numpy as np
import pytest
import torch

from dr.nets.head import Head, KeyedDropout, weigh_fellows
from dr.nets.net import initialize_weights, make_net, split_parameters
from dr.squares import draws


def make(image_px=32, seed=1, dropout=0.5, is_paired=False):
    net = make_net("nine-conv", image_px, 5, dropout, is_paired)
    initialize_weights(net, seed)
    return net


def count_parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture
def net():
    return make()


def test_layers_at_448_are_the_articles_with_925013_parameters_and_pairs_add_the_joint_ones():
    joint = 2 * 96 * 96 + 96 + 96 * 5 + 5  # features of both eyes -> 96 -> 5
    net = make(448).eval()
    assert count_parameters(net) == 925_013
    assert count_parameters(make(448, is_paired=True)) == 925_013 + joint
    shapes = []
    for layer in [*net.body.blocks, *net.head.hidden, net.head.outputs]:
        layer.register_forward_hook(
            lambda _layer, _inputs, output: shapes.append(tuple(output.shape[1:]))
        )
    with torch.inference_mode():
        net(torch.zeros(1, 3, 448, 448))
    convolutions = [
        (16, 448, 448),
        (16, 224, 224),
        (32, 224, 224),
        (32, 112, 112),
        (64, 112, 112),
        (64, 56, 56),
    ]
    convolutions += [(96, 28, 28), (96, 14, 14), (128, 7, 7)]
    assert shapes == [*convolutions, (96,), (96,), (96,), (5,)]
    assert [make(image_px).body.maps_px for image_px in (448, 224, 112, 33, 32)] == [7, 4, 2, 1, 1]


def test_squeezed_maps_go_to_the_outputs_from_every_location_and_have_no_scale():
    """2048 maps of 8x8: 2048 * 64 weights, 64 shifts, and 64 * 64 features for each of four outputs and its bias."""
    head = Head(
        2048, 64, n_squeezed=64, n_hidden=0, n_outputs=4, dropout=0.5, is_paired=False
    ).eval()
    learned = [part.numel() for part in head.parameters() if part.requires_grad]
    assert sorted(learned) == sorted([2048 * 64, 64, 4 * 64 * 64, 4])
    maps = torch.randn(2, 2048, 8, 8)
    convolution, norm, _ = head.squeeze
    torch.nn.init.normal_(norm.bias)
    squeezed = (
        torch.einsum("nchw,kc->nkhw", maps, convolution.weight[:, :, 0, 0]) / (1 + norm.eps) ** 0.5
    )
    features = (squeezed + norm.bias[:, None, None]).clamp(min=0).flatten(1)
    torch.testing.assert_close(head(maps), head.outputs(features), rtol=1e-4, atol=1e-4)


def test_l2_spares_biases_and_batch_norm(net):
    weights, others = split_parameters(net)
    assert len(weights) == 11
    assert {part.ndim for part in weights} == {2, 4}
    assert {part.ndim for part in others} == {1}
    assert (
        len(others) == 9 * 3 + 2
    )  # a bias per layer, scale and shift per BatchNorm of a convolution


def test_initial_weights_are_spread_as_torch_spreads_them_and_depend_on_the_seed_alone():
    first, same, changed = (make(seed=seed).body.blocks[0][0].weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, changed)
    torch.manual_seed(0)
    our_weights, _ = split_parameters(make(224, seed=0))
    torch_weights, _ = split_parameters(make_net("nine-conv", 224, 5, 0.5, False))
    for ours, torchs in zip(our_weights, torch_weights, strict=True):
        bound = ours[0].numel() ** -0.5
        assert ours.abs().max().item() <= bound
        assert ours.std().item() == pytest.approx(
            bound / 3**0.5, rel=0.12
        )  # 5 standard deviations of 432 draws
        assert torchs.std().item() == pytest.approx(bound / 3**0.5, rel=0.12)


def test_prediction_neither_drops_nor_learns(net):
    images = torch.randn(4, 3, 32, 32)
    before = copy.deepcopy(net.eval().state_dict())
    assert torch.equal(net(images), net(images))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(alone, net(images), rtol=0, atol=1e-5)


def test_dropout_is_a_function_of_the_keys():
    dropout = KeyedDropout(0.5)
    features = torch.ones(64, 500)
    keys = draws.make_keys(0, draws.DROPOUT, 1, torch.arange(64))
    dropped = dropout(features, keys)
    order = torch.randperm(64)
    assert torch.equal(dropout(features, keys[order]), dropped[order])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(
        1, abs=0.03
    )  # 5 standard deviations of 32,000 coins
    later = dropout(features, draws.make_keys(0, draws.DROPOUT, 2, torch.arange(64)))
    assert (later == dropped).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(dropout.eval()(features, keys), features)


def test_hash_is_splitmix64s():
    """The first outputs of SplitMix64 for the seed 1234567, as the Rosetta Code task "Pseudo-random numbers/Splitmix64"
    lists them."""
    states = (1234567 + np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(
        np.int64
    )
    hashes = draws.hash_numbers(torch.from_numpy(states)).numpy().astype(np.uint64)
    assert hashes.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_fellow_eye_counts_once_trained_and_neither_other_patients_nor_the_order_do(net):
    images = torch.randn(7, 3, 32, 32)
    eyes = torch.tensor([0, 1, 2, 3, 5, 6, 6])  # one alone, one with two pictures
    paired = make(is_paired=True).eval()
    assert torch.equal(paired(images, eyes=eyes), net.eval()(images))
    torch.nn.init.normal_(paired.head.joint[-1].weight, generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[1] = -images[1]  # the right eye of patient 0
    change = (paired(changed, eyes=eyes) - paired(images, eyes=eyes)).abs().amax(dim=1)
    assert change[0] > 100 * change[2:].max()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    shuffled = paired(images[order], eyes=eyes[order])
    torch.testing.assert_close(shuffled, paired(images, eyes=eyes)[order], atol=1e-5, rtol=0)


def test_fellow_is_the_mean_of_the_other_side_and_a_lone_eye_its_own():
    """Patient 0: both eyes; 1: two pictures of the left, one of the right; 2: right only."""
    expected = torch.zeros(6, 6)
    expected[0, 1] = expected[1, 0] = expected[2, 4] = expected[3, 4] = expected[5, 5] = 1
    expected[4, 2] = expected[4, 3] = 0.5
    assert torch.equal(weigh_fellows(torch.tensor([0, 1, 2, 2, 3, 5])), expected)
