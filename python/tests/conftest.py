"""Inputs of the tests, which the tests make themselves."""

import io
import pathlib
import random

import pyarrow as pa
import pytest

ROOT = pathlib.Path(__file__).parents[2]

PHOTOS = """
[models.photo]
path = "models/photo-ae"
[stages.photos]
kind = "images"
path = "nowhere"
[stages.pixels]
kind = "pixels"
inputs = ["photos"]
model = "photo"
[stages.latents]
kind = "encode"
inputs = ["pixels"]
model = "photo"
reconstruct = true
[stages.out]
kind = "parquet"
inputs = ["latents"]
path = "out"
columns = ["source", "row", "latent", "reconstruction_error"]
"""


def jpeg(seed: int, size: tuple[int, int] = (120, 80)) -> bytes:
    """A JPEG of random blocks."""
    from PIL import Image

    values = random.Random(seed).randbytes(8 * 8 * 3)
    image = Image.frombytes("RGB", (8, 8), values).resize(size)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    return data.getvalue()


def images(count: int) -> pa.Table:
    """Images, of which the one in the middle is broken."""
    data = [jpeg(seed) for seed in range(count)]
    data[count // 2] = b"not an image"
    return pa.table({"source": [f"{index}.jpg" for index in range(count)], "row": pa.array([0] * count, pa.uint64()), "image": data})


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    return ROOT


@pytest.fixture
def pipeline(root):
    import latentflow

    return latentflow.Pipeline(PHOTOS, base=root)
