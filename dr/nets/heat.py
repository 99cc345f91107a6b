"""Where does the net look? Grad-CAM: the places of an image that speak for an output, as arrays; no files.

Source: R. R. Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV
2017, section 3: the feature maps of a convolution, weighted by the mean gradient of the output's logit and rectified.
"""

import cv2
import numpy as np
import torch

from dr.nets.net import Net

BLUR = 0.01  # of an image's side, to which the spots of the fine layer are blurred: sharper, and nobody sees them
BATCH_SIZE = 16  # at nine-conv's first block and 448 px an image takes 13 MB, its gradient as much
STRENGTH = 0.65  # of the hottest place's colour in an overlay: what lies under it still shows
COLORS = cv2.COLORMAP_COOL  # cyan to magenta: no eye has these colours, and the colour-blind tell them apart


def map_heat(net: Net, images: torch.Tensor, outputs: np.ndarray, layer: str | int) -> np.ndarray:
    """Return how much each pixel of the net's images speaks for an output, (n, image_px, image_px) float32, 0-1.

    The layer is last, Grad-CAM proper; fine, which shows single spots; or another one, see `compute_heat`.
    """
    maps, stride, offset = compute_heat(net, images, outputs, layer)
    heat = np.stack([place_heat(places, stride, net.image_px, offset) for places in maps])
    if layer == "fine":
        heat = np.stack([cv2.GaussianBlur(spots, (0, 0), BLUR * net.image_px) for spots in heat])
    return scale_heat(heat)


def scale_heat(maps: np.ndarray) -> np.ndarray:
    """Return maps (n, h, w) of 0 and more, each divided by its largest value; one of zeros stays as it is."""
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)


def compute_heat(
    net: Net, images: torch.Tensor, outputs: np.ndarray, layer: str | int
) -> tuple[np.ndarray, int, float]:
    """Return how much each place speaks for one output of each image, (n, h, w) float32; see `Look` for the others.

    The images, (n, 3, image_px, image_px), are standardized and on the net's device. Each one's largest value is 1; all
    are 0 where nothing speaks for the output. To a paired head each image is its own fellow. The net is put into
    prediction.
    """
    net.eval()
    chosen, maps = torch.as_tensor(np.asarray(outputs, np.int64), device=images.device), []
    for part, wanted in zip(images.split(BATCH_SIZE), chosen.split(BATCH_SIZE), strict=True):
        seen = net.body.look(part, layer)
        logits = net.head(seen.features).gather(1, wanted[:, None])
        (gradient,) = torch.autograd.grad(logits.sum(), seen.maps)
        weights = gradient if seen.is_local else gradient.mean(dim=(2, 3), keepdim=True)
        maps.append((weights * seen.maps.detach()).sum(dim=1).relu().cpu().numpy())
    return scale_heat(np.concatenate(maps)), seen.stride, seen.offset


def place_heat(heat: np.ndarray, stride: int, px: int, offset: float = 0.0) -> np.ndarray:
    """Return one image's heat (h, w) as (px, px), in register: a plain resize would shift it by half a place."""
    matrix = np.array([[stride, 0, offset], [0, stride, offset]], float)
    return cv2.warpAffine(heat, matrix, (px, px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def blend_heat(rgb: np.ndarray, heat: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """Return a picture, (h, w, 3) uint8 RGB, with heat laid over it, (h, w) float32; where that is 1, of `strength`."""
    colors = cv2.cvtColor(cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), COLORS), cv2.COLOR_BGR2RGB)
    cover = np.float32(strength) * heat
    return cv2.blendLinear(np.ascontiguousarray(rgb), colors, 1 - cover, cover)
