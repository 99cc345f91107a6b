"""Encode a picture, an array, as the bytes of an image file; writes nothing."""

from collections.abc import Sequence

import cv2
import numpy as np


def encode_image(bgr: np.ndarray, suffix: str, options: Sequence[int] = ()) -> bytes:
    """Return the content of an image file with a suffix, ".png" or ".jpeg" for instance.

    The picture is uint8: grey (h, w), BGR (h, w, 3) or BGRA (h, w, 4). The options are OpenCV's, a flag and its value
    in turn. Raises RuntimeError if OpenCV cannot encode it.
    """
    is_encoded, content = cv2.imencode(suffix, bgr, options)
    if not is_encoded:
        raise RuntimeError(f"OpenCV cannot encode a picture as {suffix}")
    return content.tobytes()
