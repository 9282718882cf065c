"""The wheel and the command line return the same bits: photographs, hostile files, features, denoised images."""

import io
import os
import pathlib
import random
import subprocess
import sys

import latentflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from conftest import PHOTOS, jpeg
from PIL import Image

DENOISE = """
[models.clean]
path = "models/photo-denoise-gray"
[stages.photos]
kind = "images"
path = "nowhere"
[stages.pixels]
kind = "pixels"
inputs = ["photos"]
model = "clean"
size = [48, 64]
[stages.denoised]
kind = "denoise"
inputs = ["pixels"]
model = "clean"
to = "denoised"
[stages.scored]
kind = "score"
inputs = ["denoised"]
original = "pixels"
reconstruction = "denoised"
metrics = ["mse", "psnr", "ssim"]
[stages.out]
kind = "parquet"
inputs = ["scored"]
path = "out"
columns = ["source", "denoised", "mse", "psnr", "ssim"]
"""

FEATURES = """
[models.kdd]
path = "models/kdd-ae"
[stages.rows]
kind = "csv"
path = "rows.csv"
[stages.features]
kind = "features"
inputs = ["rows"]
model = "kdd"
[stages.latents]
kind = "encode"
inputs = ["features"]
model = "kdd"
reconstruct = true
keep_reconstruction = true
keep = true
[stages.scored]
kind = "score"
inputs = ["latents"]
original = "features"
reconstruction = "reconstruction"
model = "kdd"
metrics = []
zscore = true
top_features = 3
[stages.out]
kind = "parquet"
inputs = ["scored"]
path = "out"
columns = ["row", "latent", "reconstruction_error", "zscore", "top_features", "service"]
"""


def run(text: str, folder: pathlib.Path, root: pathlib.Path) -> tuple[pa.Table, pa.Table]:
    """The output of the command line, and its rejects."""
    (folder / "p.toml").write_text(text.replace("models/", f"{root}/models/") + "\n[rejects]\nmax_share = 1.0\n")
    command = [sys.executable, "-m", "latentflow", "run", "p.toml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return tuple(ds.dataset(folder / name).to_table() for name in ("out", "out/_latentflow/rejects"))


def hostile_files() -> dict[str, bytes]:
    """Files that are cut, or of which some bytes have other values."""
    source = random.Random(7)
    files = {}
    for form in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(jpeg(3, (40, 30)))).save(buffer, form)
        whole = buffer.getvalue()
        for index in range(12):
            data = bytearray(whole if index % 2 else whole[: source.randrange(1, len(whole))])
            for _ in range(index):
                data[source.randrange(len(data))] = source.randrange(256)
            files[f"{index}.{form.lower()}"] = bytes(data)
        files[f"whole.{form.lower()}"] = whole
    data = os.environ.get("LATENTFLOW_TEST_DATA")
    if data:
        # The files of others: those on which decoders have failed.
        for path in sorted(pathlib.Path(data, "bad").rglob("*")):
            if path.is_file() and path.stat().st_size < 1 << 20:
                files[f"{len(files)}-{path.name.lstrip('._')}"] = path.read_bytes()
    return files


def records_of(files: dict[str, bytes]) -> pa.Table:
    rows = pa.array([0] * len(files), pa.uint64())
    return pa.table({"source": list(files), "row": rows, "image": pa.array(files.values(), pa.binary())})


def write(files: dict[str, bytes], folder: pathlib.Path) -> None:
    (folder / "photos").mkdir()
    for name, data in files.items():
        (folder / "photos" / name).write_bytes(data)


def test_hostile_files_give_the_latents_and_the_rejects_of_the_command_line(root, tmp_path):
    files = hostile_files()
    write(files, tmp_path)
    text = PHOTOS.replace('"nowhere"', '"photos/*"')
    written, refused = run(text, tmp_path, root)
    pipeline = latentflow.Pipeline(text, base=root, rejects="separate")
    records, rejects = pipeline.transform(records_of(files))
    assert records.num_rows + rejects.num_rows == len(files) and rejects.num_rows > 20 and records.num_rows > 20
    columns = ["source", "latent", "reconstruction_error"]
    expected = written.select(columns).sort_by("source").combine_chunks()
    assert records.select(columns).sort_by("source").combine_chunks().equals(expected.cast(records.select(columns).schema))
    causes = ["source", "code", "reason"]
    assert rejects.select(causes).sort_by("source").to_pylist() == refused.select(causes).sort_by("source").to_pylist()


def test_denoised_images_equal_those_of_the_command_line(root, tmp_path):
    files = {f"{seed}.jpg": jpeg(seed, (64, 48)) for seed in range(8)}
    write(files, tmp_path)
    text = DENOISE.replace('"nowhere"', '"photos/*"')
    written, _ = run(text, tmp_path, root)
    result = latentflow.Pipeline(text, base=root, rejects="drop").transform(records_of(files))
    assert result.num_rows == 8
    assert result.sort_by("source").combine_chunks().equals(written.sort_by("source").combine_chunks().cast(result.schema))


def test_features_equal_those_of_the_command_line(root, tmp_path):
    columns = latentflow.Model(root / "models/kdd-ae").columns
    values = np.random.default_rng(5).exponential(50, (400, len(columns)))
    frame = pd.DataFrame(values, columns=columns)
    frame["service"] = [f"service {row % 7}" for row in range(len(frame))]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    written, refused = run(FEATURES, tmp_path, root)
    assert (written.num_rows, refused.num_rows) == (400, 0)
    pipeline = latentflow.Pipeline(FEATURES, base=root, rejects="drop")
    # The command line parses the same text to the same numbers.
    result = pipeline.transform(pd.read_csv(tmp_path / "rows.csv")).to_pyarrow()
    expected = written.sort_by("row").drop(["row"])
    assert result.combine_chunks().equals(expected.combine_chunks().cast(result.schema))


@pytest.mark.skipif(not os.environ.get("LATENTFLOW_TEST_DATA"), reason="LATENTFLOW_TEST_DATA names no folder with data")
def test_photographs_equal_those_of_the_command_line(root, tmp_path):
    photos = sorted(pathlib.Path(os.environ["LATENTFLOW_TEST_DATA"], "images/bsds500_train").rglob("*.jpg"))[:60]
    files = {f"{index}.jpg": path.read_bytes() for index, path in enumerate(photos)}
    write(files, tmp_path)
    text = PHOTOS.replace('"nowhere"', '"photos/*"')
    written, refused = run(text, tmp_path, root)
    assert (len(files), written.num_rows, refused.num_rows) == (60, 60, 0)
    result = latentflow.Pipeline(text, base=root, rejects="drop").transform(records_of(files)).sort_by("source")
    columns = ["source", "latent", "reconstruction_error"]
    expected = written.select(columns).sort_by("source").combine_chunks()
    assert result.select(columns).combine_chunks().equals(expected.cast(result.select(columns).schema))
