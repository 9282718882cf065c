#!/usr/bin/env python3
"""Compares the pixels of scaled-jpeg with those of Pillow: `compare_pillow.py FOLDER`.

At full size, pixels of gray and YCbCr images must be equal. At a reduced size, both decodes are resized to a thumbnail with
antialiasing. Distances are of 255. Needs Pillow and NumPy, and `cargo build --release` before.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
from PIL import Image

HERE = pathlib.Path(__file__).parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
PROGRAM = TARGET / "release" / "write-ppm"


# The side of a thumbnail, times the divisor: reduced photographs are about twice as large as their thumbnails.
SIDE = 128


def pixels_of(files, divisor):
    """The images of the files that are accepted, by their index."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([PROGRAM, str(divisor), folder, *files], check=True, stderr=subprocess.DEVNULL)
        found = {}
        for path in pathlib.Path(folder).iterdir():
            with Image.open(path) as image:
                found[int(path.stem)] = image.convert("RGB")
        return found


def expected_of(file):
    """Pillow's image; None if it refuses the file, or converts its colors in another way."""
    try:
        with Image.open(file) as image:
            if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
                return image.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        pass
    return None


def distance(ours, full, divisor):
    """The distances of the pixels; at a reduced size, those of both images at the size of a thumbnail."""
    if divisor > 1:
        # The last pixels cover more than the image.
        box = (0, 0, full.width / divisor, full.height / divisor)
        side = SIDE // divisor
        ours = ours.resize((side, side), Image.Resampling.BILINEAR, box=box)
        full = full.resize((side, side), Image.Resampling.BILINEAR)
    return numpy.abs(numpy.asarray(ours).astype(int) - numpy.asarray(full).astype(int))


def main():
    paths = pathlib.Path(sys.argv[1]).rglob("*")
    files = sorted(str(path) for path in paths if path.suffix.lower() in (".jpg", ".jpeg"))
    for divisor in (1, 2, 4, 8):
        means, different = [], []
        ours = pixels_of(files, divisor)
        for index, file in enumerate(files):
            full = expected_of(file)
            if index not in ours or full is None:
                continue
            distances = distance(ours[index], full, divisor)
            means.append(distances.mean())
            if divisor == 1 and distances.any():
                different.append(f"{file}: off by {distances.max()}")
        mean = sum(means) / max(len(means), 1)
        print(f"1/{divisor}: {len(means)} of {len(files)} files compared, mean distance {mean:.3f}")
        for line in different:
            print(f"  {line}")


if __name__ == "__main__":
    main()
