"""Resizes one image by the libraries that models are trained with, and writes resample.json.

    python -m venv venv && venv/bin/pip install pillow torch torchvision opencv-python-headless tensorflow-cpu
    venv/bin/python tests/preprocess/make_resample.py

The file holds a gray image and, for each library, filter, antialiasing and size, the image that the library returned: bytes, or for
TensorFlow floating-point numbers with two decimals.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

HEIGHT, WIDTH = 14, 11
SIZES = [(6, 5), (9, 4), (21, 17), (6, 17), (20, 5), (14, 11), (1, 1), (7, 11)]


def image() -> np.ndarray:
    """A gradient with noise and a sharp edge."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    noise = np.random.default_rng(7).integers(-60, 61, (HEIGHT, WIDTH))
    values = 40 + 9 * y + 7 * x + noise
    values[4:9, 5:] = 255
    return np.clip(values, 0, 255).astype(np.uint8)


def by_pillow(pixels, size, name, _antialias):
    from PIL import Image

    filters = {"nearest": Image.NEAREST, "box": Image.BOX, "bilinear": Image.BILINEAR, "hamming": Image.HAMMING,
               "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], filters[name]))


def by_torchvision(pixels, size, name, antialias):
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    mode = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
    return functional.resize(torch.from_numpy(pixels.copy())[None], list(size), mode[name], antialias=antialias)[0].numpy()


def by_opencv(pixels, size, name, _antialias):
    import cv2

    mode = {"nearest": cv2.INTER_NEAREST, "box": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC,
            "lanczos": cv2.INTER_LANCZOS4}
    return cv2.resize(pixels, size[::-1], interpolation=mode[name])


def by_tensorflow(pixels, size, name, antialias):
    import tensorflow as tf

    method = {"nearest": "nearest", "box": "area", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3"}
    return tf.image.resize(pixels[..., None], size, method=method[name], antialias=antialias).numpy()[..., 0]


LIBRARIES = {
    "pillow": (by_pillow, ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"], [None]),
    "torchvision": (by_torchvision, ["nearest", "bilinear", "bicubic"], [True, False]),
    "opencv": (by_opencv, ["nearest", "box", "bilinear", "bicubic", "lanczos"], [None]),
    "tensorflow": (by_tensorflow, ["nearest", "box", "bilinear", "bicubic", "lanczos"], [True, False]),
}


PACKAGES = {"pillow": "pillow", "torchvision": "torchvision", "opencv": "opencv-python-headless", "tensorflow": "tensorflow-cpu"}


def cases(library: str) -> list:
    from importlib.metadata import version

    pixels = image()
    resize, filters, antialiasing = LIBRARIES[library]
    found = []
    for name in filters:
        for antialias in antialiasing if name not in ("nearest", "box") else [None]:
            for size in SIZES:
                result = resize(pixels, size, name, bool(antialias))
                assert result.shape == size
                values = result.ravel()
                found.append({
                    "library": library, "version": version(PACKAGES[library]), "filter": name, "antialias": antialias, "size": size,
                    "values": values.tolist() if values.dtype == np.uint8 else [round(float(value), 2) for value in values],
                })
    return found


def main() -> None:
    if sys.argv[1:]:
        print(json.dumps(cases(sys.argv[1])))
        return
    # Two of the libraries cannot be loaded into one process.
    run = [json.loads(subprocess.check_output([sys.executable, __file__, library])) for library in LIBRARIES]
    lines = ",\n".join(json.dumps(case) for found in run for case in found)
    pixels = json.dumps(image().ravel().tolist())
    text = f'{{"height": {HEIGHT}, "width": {WIDTH}, "values": {pixels},\n"cases": [\n{lines}\n]}}\n'
    Path(__file__).with_name("resample.json").write_text(text)
    print(sum(map(len, run)), "cases")


main()
