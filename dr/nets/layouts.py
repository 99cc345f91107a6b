"""The names under which others keep a net's weights -> timm's, without running any of their code.

Known are the wrappers of training scripts (DDP, torch.compile, Lightning, DINO, CLIP-like pairs of a picture's and a
text's net), the parts that pretraining alone needs (a masked autoencoder's decoder, the heads of DINO and iBOT),
torchvision's names of efficientnet, convnext, swin and vit (those of its other nets are timm's), and whatever timm
itself converts, with position embeddings for images of another size.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from preprocess.disk.errors import InputError, shorten

# Keys under which training scripts keep weights, the one to prefer first. An average of weights is what they evaluate.
WRAPPERS = (
    "state_dict_ema", "model_ema", "teacher", "state_dict", "model_state_dict", "model", "net", "network", "weights",
)  # fmt: skip
AVERAGES = {"state_dict_ema", "model_ema"}
# What wrappers put before the names, in the order in which they are taken off, again and again.
PREFIXES = (
    "module.",
    "_orig_mod.",
    "vision_model.model.",
    "visual.trunk.",
    "model.",
    "backbone.",
    "net.",
    "network.",
)
# The classifiers of timm and torchvision, and their auxiliary ones.
HEADS = (
    "fc",
    "classifier",
    "head",
    "heads",
    "last_linear",
    "AuxLogits",
    "aux1",
    "aux2",
    "head_dist",
)
# Parts that only pretraining needs: of masked autoencoders, DINO and iBOT.
PRETRAINING = ("mask_token", "masked_embed", "decoder", "dino_head", "ibot_head", "lm_head")
# Last words of names of what windows compute from their size alone.
COMPUTED = ("relative_position_index", "attn_mask")
NORMS = {"norm": "fc_norm", "fc_norm": "norm"}  # the same norm before the pooling and behind it


class Fitted(NamedTuple):
    """Weights under a net's own names, and in words what was left out of the file or done to it."""

    tensors: dict[str, torch.Tensor]
    notes: list[str]


def unwrap(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the weights among all that a training script keeps, and what was chosen, in words."""
    notes = []
    inner = dict(content)
    for _ in range(len(WRAPPERS)):
        name = next((name for name in WRAPPERS if isinstance(inner.get(name), Mapping)), None)
        if name is None:
            break
        if name in AVERAGES:
            notes.append(f"the average of the weights, {name}, is taken")
        inner = dict(inner[name])
    return inner, notes


def fit(model: nn.Module, given: Mapping[str, Any], unused: Iterable[str]) -> Fitted:
    """Return weights under the names, and in the shapes, that a net of timm has them in.

    `unused` are the net's children that are no part of it here. What does not fit stays as it is, for the caller to
    refuse. Raises InputError for what is no tensor, and what timm cannot convert.
    """
    for name, value in given.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{shorten(str(name))} is no tensor, so these are not weights")
    expected = model.state_dict()
    tensors: dict[str, torch.Tensor] = dict(given)
    left_out: list[str] = []
    tensors, stripped = _strip_prefixes(tensors, expected)
    left_out += stripped
    tensors, heads = _split_off(tensors, {*HEADS, *unused}, expected)
    left_out += heads
    tensors = {rename_torchvision(name, tensors): value for name, value in tensors.items()}
    tensors = _convert_by_timm(model, _join_blocks(tensors), expected)
    tensors = {
        name: value
        for name, value in tensors.items()
        if name in expected or name.rpartition(".")[2] not in COMPUTED
    }
    tensors, pretraining = _split_off(tensors, {*HEADS, *unused, *PRETRAINING}, expected)
    left_out += pretraining
    notes = []
    if left_out:
        notes.append(f"left out: {_list_parts(left_out)}")
    tensors, renamed = _move_norm(tensors, expected)
    notes += renamed
    tensors, repeated = _repeat_channel(tensors, expected)
    notes += repeated
    return Fitted(
        {name: _shape_alike(value, expected.get(name)) for name, value in tensors.items()}, notes
    )


def _strip_prefixes(
    tensors: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return weights without the prefixes of wrappers, and the names of those that have none, beside others that do."""
    left_out: list[str] = []
    is_done = False
    while not is_done:
        is_done = True
        for prefix in PREFIXES:
            has_prefix = any(name.startswith(prefix) for name in tensors)
            if not has_prefix or any(name.startswith(prefix) for name in expected):
                continue
            if any(name in expected for name in tensors):
                continue  # these are the net's own names already
            left_out += [name for name in tensors if not name.startswith(prefix)]
            tensors = {
                name.removeprefix(prefix): of
                for name, of in tensors.items()
                if name.startswith(prefix)
            }
            is_done = False
    return tensors, left_out


def _split_off(
    tensors: dict[str, torch.Tensor], parts: set[str], expected: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return weights without those of some parts, and the names of the latter. The net's own are kept.

    A part is the first word of a name; `decoder` is also `decoder_blocks`, `decoder_pred` and so on. The mask token is
    a part of its own only where it is asked for.
    """
    kept = {}
    split_off = []
    for name, value in tensors.items():
        part = name.partition(".")[0]
        is_part = part in parts or ("decoder" in parts and part.startswith("decoder_"))
        if is_part and name not in expected:
            split_off.append(name)
        else:
            kept[name] = value
    return kept, split_off


def _list_parts(names: Iterable[str]) -> str:
    """Return the parts that tensors are of, with how many each has."""
    counts: dict[str, int] = {}
    for name in names:
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return ", ".join(f"{shorten(part)} ({count})" for part, count in counts.items())


# --- names ------------------------------------------------------------------------------------------------------------

# Torchvision's names, as regular expressions, and timm's. Source: torchvision/models/{convnext,swin_transformer,
# vision_transformer}.py of 0.29, timm of 1.0.31; the tests hold the outputs of both against each other.
CONVNEXT_LAYERS = {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}
CONVNEXT = {
    r"features\.0\.([01])\.(.+)": lambda n, rest: f"stem.{n}.{rest}",
    r"features\.(\d+)\.(\d+)\.layer_scale": lambda n, block: (
        f"stages.{_halve(n)}.blocks.{block}.gamma"
    ),
    r"features\.(\d+)\.(\d+)\.block\.(\d)\.(.+)": lambda n, block, layer, rest: (
        f"stages.{_halve(n)}.blocks.{block}.{CONVNEXT_LAYERS[layer]}.{rest}"
    ),
    r"features\.(\d+)\.([01])\.(weight|bias)": lambda n, layer, kind: (
        f"stages.{int(n) // 2}.downsample.{layer}.{kind}"
    ),
}
SWIN_LAYERS = {"0": "fc1", "3": "fc2"}
SWIN = {
    r"features\.0\.0\.(.+)": lambda rest: f"patch_embed.proj.{rest}",
    r"features\.0\.2\.(.+)": lambda rest: f"patch_embed.norm.{rest}",
    r"features\.(\d+)\.(reduction|norm)\.(.+)": lambda n, layer, rest: (
        f"layers.{int(n) // 2}.downsample.{layer}.{rest}"
    ),
    r"features\.(\d+)\.(\d+)\.mlp\.([03])\.(.+)": lambda n, block, layer, rest: (
        f"layers.{_halve(n)}.blocks.{block}.mlp.{SWIN_LAYERS[layer]}.{rest}"
    ),
    r"features\.(\d+)\.(\d+)\.((?:norm1|norm2|attn)\..+)": lambda n, block, rest: (
        f"layers.{_halve(n)}.blocks.{block}.{rest}"
    ),
}
VIT = {
    r"conv_proj\.(.+)": lambda rest: f"patch_embed.proj.{rest}",
    r"class_token": lambda: "cls_token",
    r"encoder\.pos_embedding": lambda: "pos_embed",
    r"encoder\.ln\.(.+)": lambda rest: f"norm.{rest}",
    r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(.+)": lambda n, which, rest: (
        f"blocks.{n}.norm{which}.{rest}"
    ),
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(.+)": lambda n, rest: (
        f"blocks.{n}.attn.qkv.{rest}"
    ),
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(.+)": lambda n, rest: (
        f"blocks.{n}.attn.proj.{rest}"
    ),
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:linear_1|0)\.(.+)": lambda n, rest: (
        f"blocks.{n}.mlp.fc1.{rest}"
    ),
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:linear_2|3)\.(.+)": lambda n, rest: (
        f"blocks.{n}.mlp.fc2.{rest}"
    ),
}
# Of EfficientNet a block's layers depend on whether it has an expansion: the first stage's have none.
EFFICIENTNET_STEM = {"0": "conv_stem", "1": "bn1"}
EFFICIENTNET_EXPANDED = {"0": "conv_pw bn1", "1": "conv_dw bn2", "2": "se", "3": "conv_pwl bn3"}
EFFICIENTNET_PLAIN = {"0": "conv_dw bn1", "1": "se", "2": "conv_pw bn2"}
EFFICIENTNET_FUSED = {"0": "conv_exp bn1", "1": "conv_pwl bn2"}
EFFICIENTNET_FUSED_PLAIN = {"0": "conv bn1"}
SQUEEZE = {"fc1": "conv_reduce", "fc2": "conv_expand"}


def _halve(number: str) -> int:
    """Return the number of a stage, where torchvision counts the layers between stages as well."""
    return (int(number) - 1) // 2


def rename_torchvision(name: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Return timm's name for torchvision's name of a tensor; a name that is not torchvision's stays as it is."""
    if "features.1.0.layer_scale" in tensors:
        return _rename_by(CONVNEXT, name)
    if "features.1.0.attn.relative_position_bias_table" in tensors:
        return _rename_by(SWIN, name)
    if "encoder.pos_embedding" in tensors:
        return _rename_by(VIT, name)
    if "features.1.0.block.0.0.weight" in tensors and "features.0.0.weight" in tensors:
        return _rename_efficientnet(name, tensors)
    return name


def _rename_by(names: Mapping[str, Any], name: str) -> str:
    for pattern, make in names.items():
        match = re.fullmatch(pattern, name)
        if match:
            return make(*match.groups())
    return name


def _rename_efficientnet(name: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Return timm's name of a tensor of torchvision's EfficientNet, of the first or the second version."""
    last = max(int(key.split(".")[1]) for key in tensors if key.startswith("features."))
    match = re.fullmatch(
        r"features\.(\d+)\.([01])\.(weight|bias|running_mean|running_var|num_batches_tracked)", name
    )
    if match:
        number, layer, kind = match.groups()
        if int(number) == last:
            return f"{'conv_head' if layer == '0' else 'bn2'}.{kind}"
        return f"{EFFICIENTNET_STEM[layer]}.{kind}"
    match = re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d)\.(\w+)\.(\w+)", name)
    if not match:
        return name
    number, block, part, layer, kind = match.groups()
    start = f"features.{number}.{block}.block"
    layers = _choose_layers(start, tensors)
    own = f"blocks.{int(number) - 1}.{block}"
    if layers[part] == "se":
        return f"{own}.se.{SQUEEZE[layer]}.{kind}"
    convolution, norm = layers[part].split()
    return f"{own}.{convolution if layer == '0' else norm}.{kind}"


def _choose_layers(start: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return what the parts of a block of torchvision's EfficientNet are called by timm."""
    if f"{start}.2.fc1.weight" in tensors:
        return EFFICIENTNET_EXPANDED
    if f"{start}.1.fc1.weight" in tensors:
        return EFFICIENTNET_PLAIN
    if f"{start}.1.0.weight" in tensors:
        return EFFICIENTNET_FUSED
    return EFFICIENTNET_FUSED_PLAIN


def _join_blocks(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights whose blocks are counted through, where DINOv2's training has them in chunks, `blocks.1.5.`."""
    if not any(re.match(r"blocks\.\d+\.\d+\.(norm1|attn|mlp|ls1)\.", name) for name in tensors):
        return tensors
    return {
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): value
        for name, value in tensors.items()
    }


# --- shapes -----------------------------------------------------------------------------------------------------------


def _convert_by_timm(
    model: nn.Module, tensors: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return weights as timm converts those of a net's family, unless they fit as they are.

    Its conversions know the names of those who published the net, and resize position embeddings.
    """
    if all(
        name in tensors and tensors[name].shape == value.shape for name, value in expected.items()
    ):
        return tensors
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        with _silenced():
            return dict(convert(dict(tensors), model))
    except (
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,
        AssertionError,
    ) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"not weights of this net (timm cannot convert them: {shorten(reason)})"
        ) from None


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep timm from logging what it resizes."""
    logger = logging.getLogger("timm")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _move_norm(
    tensors: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return weights whose last norm is where the net has it: before the pooling, or behind it; and so in words.

    Of a norm that the weights have in both places, and the net in one, the net's is taken.
    """
    moved = dict(tensors)
    notes = []
    for ours, theirs in NORMS.items():
        is_ours = f"{ours}.weight" in expected and f"{theirs}.weight" not in expected
        if not is_ours or f"{theirs}.weight" not in tensors:
            continue
        has_both = f"{ours}.weight" in tensors
        for kind in ("weight", "bias"):
            value = moved.pop(f"{theirs}.{kind}", None)
            if value is not None and not has_both:
                moved[f"{ours}.{kind}"] = value
        if has_both:
            notes.append(f"left out: {theirs}, beside {ours}")
        else:
            notes.append(f"{theirs} is taken for {ours}, the norm on the other side of the pooling")
    return moved, notes


def _repeat_channel(
    tensors: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return weights whose first convolution takes three channels, where the file's takes one, and so in words.

    Of a grey picture, whose channels are alike, it makes the same.
    """
    repeated = dict(tensors)
    notes = []
    for name, value in tensors.items():
        wanted = expected.get(name)
        if (
            wanted is None
            or value.ndim != 4
            or wanted.ndim != 4
            or (value.shape[1], wanted.shape[1]) != (1, 3)
        ):
            continue
        if value.shape[0] == wanted.shape[0] and value.shape[2:] == wanted.shape[2:]:
            repeated[name] = value.repeat(1, 3, 1, 1) / 3
            notes.append(f"{name} is of one channel, and shared out among three")
    return repeated, notes


def _shape_alike(value: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
    """Return a tensor in the shape that is wanted if only axes of length 1 differ, as of torchvision's layer scales."""
    if wanted is None or value.shape == wanted.shape:
        return value
    if [n for n in value.shape if n != 1] == [n for n in wanted.shape if n != 1]:
        return value.reshape(wanted.shape)
    return value
