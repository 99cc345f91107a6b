"""The nets that `--net` knows: nine-conv, and those of timm that give feature maps or patch tokens.

timm and torch are imported late.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocess.command import process
from preprocess.disk.errors import InputError, suggest_near

if TYPE_CHECKING:
    from torch import nn

NINE_CONV = "nine-conv"
NAME = re.compile(r"[\w-]+(\.\w+)?", re.ASCII)  # a net's, perhaps with one of timm's sets of weights for it
HUB = "https://huggingface.co/{}/resolve/main/model.safetensors"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def check(name: str, drop_path: float, pool: str = "mean") -> None:
    """Raise InputError for a net that is unknown, gives no feature maps, or has no paths to drop or no class token."""
    if name == NINE_CONV:
        if drop_path:
            raise InputError(f"--drop-path: {name} has no paths to drop")
        if pool == "token":
            raise InputError(f"--pool token: {name} has no class token")
        return
    config = find_config(name)
    import torch

    from dr.nets import tokens

    with torch.device("meta"):
        model = create(name, None, drop_path).eval()
    image_px = config.input_size[-1]
    output = model.forward_features(torch.empty(1, 3, image_px, image_px, device="meta"))  # type: ignore[operator]
    lack = tokens.describe_lack(output, getattr(model, "num_prefix_tokens", None))
    if lack is not None:
        raise InputError(f"--net {name}: {lack}")
    has_class_token = output.ndim == 3 and getattr(model, "cls_token", None) is not None
    if pool == "token" and not has_class_token:
        raise InputError(f"--pool token: {name} has no class token")


def find_config(name: str) -> Any:
    """Return timm's record of a net: its weights, their mean and std, its sizes.

    Raises InputError if it is unknown.
    """
    (timm,) = process.import_libraries(REQUIREMENTS, "timm")
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        near = suggest_near(plain, [NINE_CONV, *timm.list_models()], most=3)
        raise InputError(f"--net {name}: no such net{near}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in tags:
        raise InputError(f"--net {name}: timm has no such weights ({', '.join(tags)})")
    return timm.get_pretrained_cfg(name)


def create(name: str, image_px: int | None, drop_path: float, **options: Any) -> "nn.Module":
    """Return a net of timm for images of `image_px`, or of its own size; the options are timm's.

    Raises InputError if it cannot be made.
    """
    config = find_config(name)
    import timm  # is installed: find_config has imported it

    if drop_path:
        options["drop_path_rate"] = drop_path
    if config.fixed_input_size and image_px:
        options["img_size"] = image_px
    try:
        return timm.create_model(name, num_classes=0, **options)
    except TypeError as error:  # an unexpected keyword
        if "img_size" in str(error):  # its record says that it has a size of its own, but it takes any
            options.pop("img_size")
            return create(name, None, drop_path, **options)
        if "drop_path_rate" in str(error):
            raise InputError(f"--drop-path: {name} has no paths to drop") from None
        raise InputError(f"--net {name}: {error}") from None


def find_source(name: str) -> str:
    """Return the address of timm's weights for a net. Raises InputError if there are none."""
    if name == NINE_CONV:
        raise InputError(f"--weights imagenet: there are none for {NINE_CONV}")
    config = find_config(name)
    if config.hf_hub_id:
        return HUB.format(config.hf_hub_id)
    if config.url:
        return config.url
    raise InputError(f"--weights imagenet: timm has none for {name}")


def download(name: str, image_px: int) -> "nn.Module":
    """Return a net with timm's own weights.

    Raises InputError, naming the file to fetch, if the hub is out of reach.
    """
    source = find_source(name)
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return create(name, image_px, 0.0, pretrained=True)
    except (OSError, HfHubHTTPError):
        raise InputError(f"--weights imagenet: out of reach; fetch {source} and give --weights FILE") from None
