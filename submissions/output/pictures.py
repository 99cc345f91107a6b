"""Pictures for a page: an array -> a data URI that stands in the page itself."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from preprocess.picture.encode import encode_image

JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 75, cv2.IMWRITE_JPEG_OPTIMIZE, 1)


def encode_picture(rgb: np.ndarray, side_px: int) -> str:
    """Return a picture, (h, w, 3) uint8 RGB, scaled to a longer side, as the data URI of a JPEG."""
    scale = side_px / max(rgb.shape[:2])
    width, height = (max(1, round(side * scale)) for side in rgb.shape[1::-1])
    small = cv2.resize(
        rgb, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return encode(np.ascontiguousarray(small[..., ::-1]), "jpeg", JPEG_OPTIONS)


def encode(bgr: np.ndarray, kind: str, options: Sequence[int]) -> str:
    """Return a picture, (h, w, 3 or 4) uint8 BGR or BGRA, as a data URI."""
    content = encode_image(bgr, f".{kind}", options)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
