"""Three classical segmentations, as scikit-image has them.

Their settings were chosen on 24 training photographs of BSDS500 and are the same everywhere.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError, MissingDataError, UnknownNameError

SETTINGS: MappingProxyType[str, dict[str, float]] = MappingProxyType(
    {
        "felzenszwalb": {"scale": 600, "sigma": 0.8, "min_size": 50},
        "slic": {"n_segments": 10, "compactness": 10},
        "watershed": {"markers": 20},
    }
)
CLASSICAL = tuple(SETTINGS)


def segment(
    model_name: str, photograph: NDArray[np.uint8]
) -> tuple[EntityMap, NDArray[np.float64]]:
    """Cut a photograph into regions.

    * `felzenszwalb`: graph-based, on colour (Felzenszwalb and Huttenlocher 2004).
    * `slic`: superpixels, few and large (Achanta et al. 2012).
    * `watershed`: flooding of the Sobel gradient of the gray image.

    Args:
        model_name: One of `CLASSICAL`.
        photograph: `(H, W, 3)` uint8 RGB.

    Returns:
        The regions as entities, and `(N,)` float64: each one's share of the pixels.

    Raises:
        UnknownNameError: No such method.
        FormatError: Not a photograph of that shape.
        MissingDataError: scikit-image is not installed.
    """
    if model_name not in SETTINGS:
        kind = "classical model"
        raise UnknownNameError.of(kind, model_name, CLASSICAL)
    if photograph.ndim != 3 or photograph.shape[2] != 3 or photograph.dtype != np.uint8:
        msg = f"a photograph is (H, W, 3) uint8, this is {photograph.dtype} {photograph.shape}"
        raise FormatError(msg)
    # every pixel belongs to a region, so that no id means void
    entity_map = EntityMap.from_array(_regions(model_name, photograph), void=())
    pixels = photograph.shape[0] * photograph.shape[1]
    return entity_map, entity_map.areas[1:] / pixels


def _regions(model_name: str, photograph: NDArray[np.uint8]) -> NDArray[np.int64]:
    try:
        skimage = import_module("skimage")  # half of it is untyped
    except ImportError as error:
        msg = f"`{model_name}` needs scikit-image, which is not installed"
        raise MissingDataError(msg, hint='pip install "entitybench[models]"') from error
    settings: dict[str, Any] = SETTINGS[model_name]
    if model_name == "felzenszwalb":
        regions = skimage.segmentation.felzenszwalb(photograph, **settings)
    elif model_name == "slic":
        regions = skimage.segmentation.slic(photograph, start_label=1, **settings)
    else:
        gradient = skimage.filters.sobel(skimage.color.rgb2gray(photograph))
        regions = skimage.segmentation.watershed(gradient, **settings)
    return np.asarray(regions, dtype=np.int64)
