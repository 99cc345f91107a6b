"""Where does the net look? Grad-CAM: the locations of an image that speak for an output, as arrays; no files.

Source: R. R. Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, ICCV 2017, section 3: the feature maps of a convolution, weighted by the mean gradient
of the output's logit and rectified.
"""

import cv2
import numpy as np
import torch

from dr.nets.net import Net

BLUR = 0.01  # of an image's side: unblurred, the spots of the fine layer are too small to be seen
BATCH_SIZE = 16  # at nine-conv's first block and 448 px an image takes 13 MB, its gradient as much
STRENGTH = 0.65  # of the hottest location's colour in an overlay: the picture below still shows
COLORS = (
    cv2.COLORMAP_COOL
)  # cyan to magenta: no eye has these colours, and the colour-blind tell them apart


def map_heat(net: Net, images: torch.Tensor, outputs: np.ndarray, layer: str | int) -> np.ndarray:
    """Return how much each pixel speaks for an output, (n, image_px, image_px) float32, 0-1.

    The layer is last, Grad-CAM proper; fine, which shows single spots; or another one, see `compute_heat`.
    """
    maps, stride, offset = compute_heat(net, images, outputs, layer)
    heat = np.stack([upsample_heat(values, stride, net.image_px, offset) for values in maps])
    if layer == "fine":
        heat = np.stack([cv2.GaussianBlur(spots, (0, 0), BLUR * net.image_px) for spots in heat])
    return scale_heat(heat)


def scale_heat(maps: np.ndarray) -> np.ndarray:
    """Return maps (n, h, w) of 0 and more, each divided by its largest value; zeros stay zeros."""
    largest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.maximum(largest, np.finfo(np.float32).tiny)


def compute_heat(
    net: Net, images: torch.Tensor, outputs: np.ndarray, layer: str | int
) -> tuple[np.ndarray, int, float]:
    """Return how much each location speaks for one output of each image, with stride and offset.

    The maps are (n, h, w) float32; each one's largest value is 1, or all are 0 where nothing speaks
    for the output. Inside a plain transformer they tell how much the output may hang on each location,
    for or against. Stride and offset are those of `Activations`. The images, (n, 3, image_px,
    image_px), are standardized and on the net's device. For a paired head each image is its own
    fellow. The net is put into evaluation mode.
    """
    net.eval()
    chosen = torch.as_tensor(np.asarray(outputs, np.int64), device=images.device)
    maps = []
    for batch, numbers in zip(images.split(BATCH_SIZE), chosen.split(BATCH_SIZE), strict=True):
        activations = net.body.record_activations(batch, layer)
        logits = net.head(activations.features).gather(1, numbers[:, None])
        (gradient,) = torch.autograd.grad(logits.sum(), activations.maps)
        if activations.is_unsigned:
            lengths = gradient.norm(dim=1) * activations.maps.detach().norm(dim=1)
            maps.append(lengths.cpu().numpy())
            continue
        weights = gradient if activations.is_local else gradient.mean(dim=(2, 3), keepdim=True)
        weighted = (weights * activations.maps.detach()).sum(dim=1)
        maps.append(weighted.relu().cpu().numpy())
    return scale_heat(np.concatenate(maps)), activations.stride, activations.offset


def upsample_heat(heat: np.ndarray, stride: int, px: int, offset: float = 0.0) -> np.ndarray:
    """Return one image's heat (h, w) as (px, px), in register.

    A plain resize would shift it by half a location.
    """
    matrix = np.array([[stride, 0, offset], [0, stride, offset]], float)
    return cv2.warpAffine(
        heat, matrix, (px, px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def blend_heat(rgb: np.ndarray, heat: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """Return a picture, (h, w, 3) uint8 RGB, with heat laid over it, (h, w) float32, 0-1.

    Where the heat is 1, its colour has the share `strength`.
    """
    levels = np.rint(255 * heat).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, COLORS), cv2.COLOR_BGR2RGB)
    cover = np.float32(strength) * heat
    return cv2.blendLinear(np.ascontiguousarray(rgb), colors, 1 - cover, cover)
