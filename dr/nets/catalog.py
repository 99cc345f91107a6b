"""The nets that `--net` knows: nine-conv, and those of timm that give feature maps or patch tokens.

timm and torch are imported late.
"""

import os
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocess.command import process
from preprocess.disk.errors import InputError, suggest_near

if TYPE_CHECKING:
    from torch import nn

NINE_CONV = "nine-conv"
NAME = re.compile(
    r"[\w-]+(\.\w+)?", re.ASCII
)  # a net's, perhaps with one of timm's sets of weights for it
SITE = "https://huggingface.co"
HUB = SITE + "/{}/resolve/main/model.safetensors"
KEPT_AS = (
    "model.safetensors",
    "pytorch_model.bin",
)  # names of a net's weights on the hub, the best first
REACH_S = 10  # a server that does not answer by then is out of reach
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
        if "img_size" in str(
            error
        ):  # its record says that it has a size of its own, but it takes any
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


def check_reach(name: str) -> None:
    """Raise InputError, naming the file to fetch, if timm's weights are neither on this machine nor within reach.

    One question, and no second try: the hub's own client goes on asking for minutes.
    """
    source = find_source(name)
    if find_kept(name) is not None:
        return
    reason = find_hindrance(source)
    if reason is not None:
        raise InputError(
            f"--weights imagenet: out of reach ({reason}); fetch {source} and give --weights FILE"
        )


def find_hindrance(address: str) -> str | None:
    """Return why an address cannot be had, None if it can: asked once, for REACH_S at most.

    HF_ENDPOINT in the environment names a mirror of the hub, as for the hub's own client.
    """
    mirror = os.environ.get("HF_ENDPOINT", SITE).rstrip("/")
    asked = address.replace(SITE, mirror)
    request = urllib.request.Request(asked, method="HEAD", headers={"User-Agent": "dr-pipeline"})
    try:
        with urllib.request.urlopen(request, timeout=REACH_S):
            return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def find_kept(name: str) -> Path | None:
    """Return the file in which a client keeps a net's weights on this machine; None if it keeps none."""
    config = find_config(name)
    if not config.hf_hub_id:
        import torch  # is installed: find_config has imported timm

        kept_file = Path(torch.hub.get_dir(), "checkpoints", Path(config.url or "none").name)
        return kept_file if kept_file.is_file() else None
    (hub,) = process.import_libraries(REQUIREMENTS, "huggingface_hub")
    for filename in KEPT_AS:
        kept = hub.try_to_load_from_cache(config.hf_hub_id, filename)
        if isinstance(kept, str):
            return Path(kept)
    return None


def download(name: str, image_px: int) -> "nn.Module":
    """Return a net with timm's own weights.

    Raises InputError, naming the file to fetch, if the hub is out of reach.
    """
    check_reach(name)
    kept = find_kept(name)
    if kept is not None:  # the hub need not be asked whether they are the newest
        return create(
            name, image_px, 0.0, pretrained=True, pretrained_cfg_overlay={"file": str(kept)}
        )
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return create(name, image_px, 0.0, pretrained=True)
    except (OSError, HfHubHTTPError):
        source = find_source(name)
        raise InputError(
            f"--weights imagenet: out of reach; fetch {source} and give --weights FILE"
        ) from None
