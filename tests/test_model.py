"""The net: the article's numbers, and what dropout, L2 and prediction leave alone."""

import numpy as np
import pytest
import torch

from dr import draws, model
from dr.model import NineConvNet, PairedNet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def net():
    net = NineConvNet(image_px=32)
    model.initialize_weights(net, seed=1)
    return net


def test_net_has_925013_parameters_at_448():
    assert sum(parameter.numel() for parameter in NineConvNet().parameters()) == 925_013


def test_layer_shapes_at_448_are_the_articles():
    net, shapes = NineConvNet().eval(), []
    for block in net.blocks:
        block.register_forward_hook(lambda _layer, _given, made: shapes.append(tuple(made.shape[1:])))
    for layer in net.head:
        layer.register_forward_hook(lambda _layer, _given, made: shapes.append(tuple(made.shape[1:])))
    with torch.inference_mode():
        net(torch.zeros(1, 3, 448, 448))
    convolutions = [(16, 448, 448), (16, 224, 224), (32, 224, 224), (32, 112, 112), (64, 112, 112), (64, 56, 56)]
    convolutions += [(96, 28, 28), (96, 14, 14), (128, 7, 7)]
    assert shapes == [*convolutions, (96,), (96,), (96,), (5,)]


@pytest.mark.parametrize(("image_px", "pooled_px"), [(448, 7), (224, 4), (112, 2), (33, 1), (32, 1)])
def test_other_sizes_work(image_px, pooled_px):
    assert model.find_pooled_px(image_px) == pooled_px
    with torch.inference_mode():
        assert NineConvNet(image_px).eval()(torch.zeros(2, 3, image_px, image_px)).shape == (2, 5)


def test_too_small_images_raise():
    with pytest.raises(ValueError, match="at least 32"):
        NineConvNet(31)


def test_pooling_before_relu_equals_pooling_after():
    torch.manual_seed(0)
    block, images = model.make_block(3, 8, is_pooled=True), torch.randn(4, 3, 20, 20)
    convolution, norm, pool, relu = block
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)  # a negative scale would tell the orders apart, were it not applied before both
    one, other = block(images), pool(relu(norm(convolution(images))))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    weights = torch.randn_like(one)
    (gradient,) = torch.autograd.grad((one * weights).sum(), convolution.weight)
    (expected,) = torch.autograd.grad((other * weights).sum(), convolution.weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_l2_spares_biases_and_batch_norm(net):
    weights, others = model.split_parameters(net)
    assert len(weights) == 11
    assert all(weight.ndim >= 2 for weight in weights)
    assert len(others) == 9 * 3 + 2  # a bias per layer, scale and shift per BatchNorm of a convolution
    assert all(parameter.ndim == 1 for parameter in others)
    assert len(weights) + len(others) == len(list(net.parameters()))


def test_initial_weights_are_spread_as_torch_spreads_them():
    torch.manual_seed(0)
    ours, torchs = NineConvNet(224), NineConvNet(224)
    model.initialize_weights(ours, seed=0)
    for own, other in zip(model.split_parameters(ours)[0], model.split_parameters(torchs)[0], strict=True):
        bound = own[0].numel() ** -0.5
        assert own.abs().max().item() <= bound
        assert own.std().item() == pytest.approx(bound / 3**0.5, rel=0.12)  # 5 standard deviations of 432 draws
        assert other.std().item() == pytest.approx(bound / 3**0.5, rel=0.12)


def test_initial_weights_depend_on_the_seed_alone():
    nets = [NineConvNet(32) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        model.initialize_weights(net, seed)
    first, same, other = (net.blocks[0][0].weight for net in nets)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_prediction_neither_drops_nor_learns(net):
    images = torch.randn(4, 3, 32, 32)
    net.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.equal(net(images), net(images))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(alone, net(images), rtol=0, atol=1e-5)


def test_training_needs_no_keys(net):
    assert net(torch.randn(4, 3, 32, 32)).shape == (4, 5)


def test_dropout_is_a_function_of_the_keys():
    dropout, features = model.KeyedDropout(0.5), torch.ones(64, 500)
    keys = draws.make_keys(0, draws.DROPOUT, 1, torch.arange(64))
    dropped = dropout(features, keys)
    order = torch.randperm(64)
    assert torch.equal(dropout(features, keys[order]), dropped[order])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)  # 5 standard deviations of 32,000 coins
    later = dropout(features, draws.make_keys(0, draws.DROPOUT, 2, torch.arange(64)))
    assert (later == dropped).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(dropout.eval()(features, keys), features)


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_dropout_outside_0_to_1_raises(probability):
    with pytest.raises(ValueError, match="dropout"):
        NineConvNet(32, dropout=probability)


def test_hash_is_splitmix64s():
    """The first outputs of SplitMix64 for the seed 1234567, as the Rosetta Code task "Pseudo-random numbers/Splitmix64"
    lists them."""
    states = (1234567 + np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(np.int64)
    hashes = draws.hash_numbers(torch.from_numpy(states)).numpy().astype(np.uint64)
    assert hashes.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_net_can_learn_a_batch_by_heart(net):
    images, levels = torch.randn(10, 3, 32, 32), torch.arange(10) % 5
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    net.dropout.probability = 0.0
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(net(images), levels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


# --- both eyes --------------------------------------------------------------------------------------------------------


def test_pairs_add_the_joint_head_to_the_925013():
    joint = 2 * 96 * 96 + 96 + 96 * 5 + 5  # own and fellow features -> 96 -> 5
    assert sum(parameter.numel() for parameter in PairedNet().parameters()) == 925_013 + joint


def test_untrained_correction_changes_nothing(net):
    paired = PairedNet(image_px=32)
    model.initialize_weights(paired, seed=1)
    images, eyes = torch.randn(6, 3, 32, 32), torch.arange(6)
    assert torch.equal(paired.eval()(images, eyes=eyes), net.eval()(images))


@pytest.fixture
def paired():
    """A paired net whose correction says something."""
    net = PairedNet(image_px=32)
    model.initialize_weights(net, seed=1)
    torch.nn.init.normal_(net.joint[-1].weight, generator=torch.Generator().manual_seed(0))
    return net.eval()


def test_fellow_eye_counts_and_other_patients_do_not(paired):
    images, eyes = torch.randn(6, 3, 32, 32), torch.arange(6)
    scores = paired(images, eyes=eyes)
    changed = images.clone()
    changed[1] = -images[1]  # the right eye of patient 0
    change = (paired(changed, eyes=eyes) - scores).abs().amax(dim=1)
    assert change[0] > 100 * change[2:].max()


def test_order_of_images_changes_no_paired_score(paired):
    images, eyes = torch.randn(7, 3, 32, 32), torch.tensor([0, 1, 2, 3, 5, 6, 6])  # one alone, one with two pictures
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        paired(images[order], eyes=eyes[order]), paired(images, eyes=eyes)[order], atol=1e-5, rtol=0
    )


def test_fellow_is_the_mean_of_the_other_side_and_a_lone_eye_its_own():
    """Patient 0: both eyes; 1: two pictures of the left, one of the right; 2: right only."""
    weights = model.weigh_fellows(torch.tensor([0, 1, 2, 2, 3, 5]))
    expected = torch.zeros(6, 6)
    expected[0, 1] = expected[1, 0] = expected[2, 4] = expected[3, 4] = expected[5, 5] = 1
    expected[4, 2] = expected[4, 3] = 0.5
    assert torch.equal(weights, expected)
