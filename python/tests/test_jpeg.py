"""JPEGs decoded by the package, compared with Pillow, which decodes with libjpeg-turbo."""

import io
import itertools
import os
import pathlib
import random

import latentflow
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

PIPELINE = """
[stages.photos]
kind = "images"
path = "nowhere"
[stages.pixels]
kind = "pixels"
inputs = ["photos"]
{options}
channels = "{channels}"
layout = "nhwc"
range = [0, 255]
[stages.out]
kind = "parquet"
inputs = ["pixels"]
path = "out"
columns = ["source", "pixels"]
"""

CHANNELS = {"rgb": "RGB", "gray": "L"}


def picture(source: random.Random, mode: str, size: tuple[int, int]) -> Image.Image:
    """Edges, gradients and noise."""
    bands = len(mode.replace("CMYK", "abcd"))
    noise = np.random.default_rng(source.randrange(1 << 32))
    coarse = noise.integers(0, 256, (max(1, size[1] // 8), max(1, size[0] // 8), bands), np.uint8)
    images = [Image.fromarray(coarse[:, :, band]).resize(size, source.choice([0, 2, 3])) for band in range(bands)]
    values = np.stack([np.asarray(image, np.float32) for image in images], -1) + noise.normal(0, source.choice([0, 3, 25]), (size[1], size[0], bands))
    values = np.clip(values, 0, 255).astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if bands == 1 else values, mode)


def made(count: int) -> dict[str, bytes]:
    """Files of all kinds that Pillow writes: sizes from 1 to 70, samplings, qualities, restarts, progressive scans."""
    source, files = random.Random(20), {}
    kinds = itertools.cycle(itertools.product(["RGB", "L", "CMYK"], ["4:4:4", "4:2:2", "4:2:0"], [False, True], [0, 1, 5], [False, True]))
    for index, (mode, subsampling, progressive, restart, optimize) in zip(range(count), kinds):
        size = (source.randint(1, 70), source.randint(1, 70)) if index % 3 else (1 + index // 3 % 70, source.choice([1, 2, 3, 8, 17, 70]))
        options = {"quality": source.choice([1, 10, 50, 75, 90, 95, 100]), "progressive": progressive, "optimize": optimize, "restart_marker_blocks": restart}
        if mode == "RGB":
            options["subsampling"] = subsampling
        data = io.BytesIO()
        picture(source, mode, size).save(data, "JPEG", **options)
        files[f"{index}-{mode}-{subsampling}-{size[0]}x{size[1]}-{options['quality']}{'-progressive' * progressive}.jpg"] = data.getvalue()
    return files


def decoded(files: dict[str, bytes], channels: str, options: str = 'size = "original"') -> dict[str, np.ndarray]:
    """The pixels of the files that are not rejected."""
    table = pa.table({"source": list(files), "row": pa.array([0] * len(files), pa.uint64()), "image": pa.array(files.values(), pa.binary())})
    pipeline = latentflow.Pipeline(PIPELINE.format(channels=channels, options=options), rejects="separate")
    records, _ = pipeline.transform(table)
    found = {}
    for batch in records.to_batches():
        column = batch.column("pixels")
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        for index, name in enumerate(batch.column("source").to_pylist()):
            if pa.types.is_struct(column.type):
                values, shape = column.field("data")[index].values, column.field("shape")[index].values.to_numpy()
            else:
                values, shape = column[index].values, (-1,)
            found[name] = values.to_numpy().reshape(shape)
    return found


def differences(files: dict[str, bytes], channels: str) -> dict[str, int]:
    """The largest difference from Pillow for each file that both decode."""
    found = {}
    for name, pixels in decoded(files, channels).items():
        with Image.open(io.BytesIO(files[name])) as image:
            expected = np.asarray(image.convert(CHANNELS[channels]), np.float32)
        found[name] = int(np.abs(pixels.reshape(expected.shape) - expected).max())
    return found


@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_made_files_equal_those_of_pillow(channels):
    files = made(2400 if channels == "rgb" else 600)
    found = differences(files, channels)
    assert len(found) == len(files)
    worst = sorted(found.items(), key=lambda each: -each[1])[:5]
    assert worst[0][1] <= 1, worst


def test_truncated_files_are_rejected_in_both_modes():
    source = random.Random(3)
    whole = list(made(54).items())
    cut = {name: data[: source.randrange(3, len(data) - 1)] for name, data in whole}
    for options in ('size = "original"', 'size = [2, 2]\ndecode = "scaled"'):
        assert decoded(cut, "rgb", options) == {}
    assert len(decoded(dict(whole), "rgb", 'size = [2, 2]\ndecode = "scaled"')) == len(whole)


def natural(seed: int, size: tuple[int, int]) -> Image.Image:
    """An image whose frequencies have amplitudes as those of photographs."""
    noise = np.random.default_rng(seed)
    down, across = np.meshgrid(np.fft.fftfreq(size[1]), np.fft.fftfreq(size[0]), indexing="ij")
    amplitude = np.maximum(np.hypot(down, across), 1 / max(size)) ** -1.25
    shared = noise.normal(size=(size[1], size[0]))
    bands = [np.fft.ifft2(np.fft.fft2(shared + 0.3 * noise.normal(size=shared.shape)) * amplitude).real for _ in range(3)]
    values = np.stack([128 + 50 * band / band.std() for band in bands], -1)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(("subsampling", "progressive"), [("4:2:0", False), ("4:4:4", False), ("4:2:0", True)])
def test_scaled_decoding_is_near_full_decoding(subsampling, progressive):
    files = {}
    for seed in range(12):
        data = io.BytesIO()
        natural(seed, (481, 321)).save(data, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
        files[f"{seed}.jpg"] = data.getvalue()
    # Decoded at 1/2, 1/4 and 1/8 of the size. A sample is the mean of more pixels at a smaller scale, which blurs a little.
    for side, mean in ((80, 0.5), (40, 0.7), (20, 1.0)):
        full, scaled = (decoded(files, "rgb", f'size = [{side}, {side}]\ndecode = "{mode}"') for mode in ("full", "scaled"))
        steps = np.stack([np.abs(full[name] - scaled[name]) for name in files])
        assert 0 < steps.mean() < mean, side
        assert steps.max() < 16, side


@pytest.mark.skipif(not os.environ.get("LATENTFLOW_TEST_DATA"), reason="LATENTFLOW_TEST_DATA names no folder with data")
def test_files_of_others_equal_those_of_pillow():
    data = pathlib.Path(os.environ["LATENTFLOW_TEST_DATA"])
    photos = [*sorted(data.glob("images/bsds500_t*/**/*.jpg"))[::10], *sorted(data.glob("images/cifar10_jpg/**/*.jpg"))[::10]]
    files = {str(path): path.read_bytes() for path in photos}
    assert len(files) > 100
    found = differences(files, "rgb")
    assert len(found) == len(files)
    assert max(found.values()) <= 1
    bad = {str(path): path.read_bytes() for path in sorted(data.glob("bad/**/*.jp*g")) if not path.name.startswith("._")}
    found = differences({name: content for name, content in bad.items() if upright(content)}, "rgb")
    assert found
    worst = sorted(found.items(), key=lambda each: -each[1])[:5]
    assert worst[0][1] <= 1, worst


def upright(data: bytes) -> bool:
    """Whether Pillow decodes the file without turning it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.format == "JPEG" and image.getexif().get(0x0112, 1) == 1
    except Exception:
        return False
