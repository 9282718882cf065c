"""Inputs of the tests, which the tests make themselves, and the table of the tests that kill processes."""

import collections
import io
import os
import pathlib
import random
import time

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


def pytest_configure(config):
    config.addinivalue_line("markers", "scale: a test of a cluster that only `make scale` runs")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("scale") and not os.environ.get("LATENTFLOW_SCALE"):
            item.add_marker(pytest.mark.skip(reason="`make scale` runs it"))


class Job:
    """A job in which a process is killed. The table of all jobs is printed at the end of the tests."""

    table: list[tuple[str, float, int, int]] = []

    def __init__(self, name: str):
        self._name, self._start = name, time.monotonic()

    def check(self, written: list[str], photos: pathlib.Path) -> None:
        """Compares the sources that were written with the files of a folder."""
        seconds = time.monotonic() - self._start
        counts = collections.Counter(pathlib.PurePath(source).name for source in written)
        names = {path.name for path in photos.iterdir()}
        lost, twice = len(names - set(counts)), sum(count - 1 for count in counts.values())
        self.table.append((self._name, seconds, lost, twice))
        assert (lost, twice, set(counts) - names) == (0, 0, set())


@pytest.fixture
def job():
    """Starts a job: `job("name")`."""
    return Job


def pytest_terminal_summary(terminalreporter):
    if Job.table:
        terminalreporter.section("killed processes")
        terminalreporter.line(f"{'what':<50}{'job s':>8}{'lost':>8}{'twice':>8}")
        for name, seconds, lost, twice in Job.table:
            terminalreporter.line(f"{name:<50}{seconds:>8.1f}{lost:>8}{twice:>8}")


def write_photos(folder: pathlib.Path, count: int, broken: int) -> pathlib.Path:
    """Writes images, of which every `broken`-th one is broken."""
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:04}.jpg").write_bytes(jpeg(index) if index % broken else b"not an image")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working folder of the tests of a cluster, with the files that the examples read."""
    folder = tmp_path_factory.mktemp("driver")
    for name in ("models", "pipelines"):
        (folder / name).symlink_to(ROOT / name)
    write_photos(folder / "photos", 30, 10)
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
