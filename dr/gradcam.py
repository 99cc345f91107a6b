"""Where does the net look? Grad-CAM: the places of a photograph that speak for a level, as arrays; no files.

Source: R. R. Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV
2017, section 3: the feature maps of a convolution, weighted by the mean gradient of the level's logit and rectified.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from dr.model import CONVOLUTIONS, NineConvNet

# Which block, and whether each place has its own weight. With such weights the hottest place of each of blocks 2 to 5
# lies on a lesion in 99 of 100 drawn eyes or more; of these the fifth (112 x 112 places at 448 px) has seen most around
# it. The figures: `python -m tests.benchmarks.explain --blocks`.
LAYERS = {"last": (len(CONVOLUTIONS) - 1, False), "fine": (5, True)}
BLUR = 0.01  # of an image's side, to which the spots of the fine layer are blurred: sharper, and nobody sees them
BATCH_SIZE = 16  # at block 0 and 448 px an image takes 13 MB, its gradient as much
STRENGTH = 0.65  # of the hottest place's colour in an overlay: what lies under it still shows
COLORS = cv2.COLORMAP_COOL  # cyan to magenta: no eye has these colours, and the colour-blind tell them apart


def map_heat(net: NineConvNet, images: torch.Tensor, levels: np.ndarray, layer: str) -> np.ndarray:
    """Return how much each pixel of the net's images speaks for a level, (n, image_px, image_px) float32, 0-1.

    Parameters
    ----------
    images, levels : as in `compute_heat`
    layer : last, Grad-CAM proper, a place every 32 pixels; or fine, a place every 4, each with its own weight
    """
    block, is_local = LAYERS[layer]
    maps = compute_heat(net, images, levels, block, is_local)
    heat = np.stack([resize_heat(places, block, net.image_px, net.image_px) for places in maps])
    if is_local:
        heat = np.stack([cv2.GaussianBlur(spots, (0, 0), BLUR * net.image_px) for spots in heat])
    return scale_heat(heat)


def scale_heat(maps: np.ndarray) -> np.ndarray:
    """Return maps (n, h, w) of 0 and more, each divided by its largest value; one of zeros stays as it is."""
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)


def compute_heat(
    net: NineConvNet, images: torch.Tensor, levels: np.ndarray, block: int, is_local: bool = False
) -> np.ndarray:
    """Return how much each place speaks for a level, (n, h, w) float32, 0-1: each image's largest value is 1.

    All 0 where nothing speaks for the level. To a net for both eyes each image is its own fellow. The feature maps are
    those of the article's order, convolution, BatchNorm, ReLU, then max-pool; so h is the block's size before its own
    pooling. The net is put into prediction.

    Parameters
    ----------
    images : (n, 3, image_px, image_px) float32, standardized, on the net's device
    levels : (n,) int, the level to explain in each image
    block : 0 to 8, which convolution
    is_local : weigh each place of a map by its own gradient, not by the map's mean gradient. The mean is for nets that
        end in an average over places; this one has a linear layer, which tells places apart. Source: R. L. Draelos
        and L. Carin, Use HiResCAM instead of Grad-CAM for faithful explanations, arXiv:2011.08891, 2020.
    """
    net.eval()
    chosen = torch.as_tensor(np.asarray(levels, np.int64), device=images.device)
    batches = zip(images.split(BATCH_SIZE), chosen.split(BATCH_SIZE), strict=True)
    maps = np.concatenate([_weigh_maps(net, *batch, block, is_local).cpu().numpy() for batch in batches])
    return scale_heat(maps)


def _weigh_maps(
    net: NineConvNet, images: torch.Tensor, levels: torch.Tensor, block: int, is_local: bool
) -> torch.Tensor:
    """Return the rectified sum of a block's weighted feature maps, (n, h, w)."""
    convolution, norm, *pooling, _ = net.blocks[block]
    with torch.no_grad():
        maps = norm(convolution(net.blocks[:block](images))).relu()
    maps.requires_grad_()  # from here on, and only here, gradients are needed
    features = maps
    for layer in pooling:
        features = layer(features)
    logits = net.classify(net.head[:-1](net.blocks[block + 1 :](features).flatten(1)), None)
    (gradient,) = torch.autograd.grad(logits.gather(1, levels[:, None]).sum(), maps)
    weights = gradient if is_local else gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * maps.detach()).sum(dim=1).relu()


def find_stride(block: int) -> int:
    """Return how many pixels of the net's image lie between two places of a block's map: 32 for the last."""
    return 2 ** sum(is_pooled for _, is_pooled in CONVOLUTIONS[:block])


def resize_heat(heat: np.ndarray, block: int, image_px: int, px: int) -> np.ndarray:
    """Return one image's heat (h, w) as (px, px) float32, 0-1, in register with the image the net saw.

    A pooling of 3 x 3 with stride 2 centres place i on pixel 2 i, so place i of a block lies on pixel stride * i; a
    plain resize would shift the map by half a place to the lower right.

    Parameters
    ----------
    heat : (h, w) of `compute_heat`
    block : the block it was computed for
    image_px : side of the net's images
    px : side of the result, which shows the same square
    """
    scale = px / image_px
    step, start = find_stride(block) * scale, 0.5 * scale - 0.5
    matrix = np.array([[step, 0, start], [0, step, start]])
    return cv2.warpAffine(heat, matrix, (px, px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def blend_heat(rgb: np.ndarray, heat: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """Return a picture with heat laid over it, (h, w, 3) uint8 RGB: the hotter, the more colour; cold stays as it is.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    heat : (h, w) float32, 0-1
    strength : 0-1, share of colour where the heat is 1
    """
    colors = cv2.cvtColor(cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), COLORS), cv2.COLOR_BGR2RGB)
    cover = np.float32(strength) * heat
    return cv2.blendLinear(np.ascontiguousarray(rgb), colors, 1 - cover, cover)
