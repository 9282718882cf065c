"""Tests of `latentflow.Model` and `latentflow.encode`."""

import io
import os
import pickle
import shutil
import subprocess
import sys

import latentflow
import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest
from conftest import PHOTOS, images, jpeg
from PIL import Image


def onnx(path, array):
    """The output of an ONNX file, computed by ONNX Runtime in Python."""
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: array})[0]


@pytest.fixture(scope="module")
def photo(root):
    return latentflow.Model(root / "models/photo-ae")


def test_arrays_equal_those_of_pillow_and_onnxruntime(photo, root):
    files = [jpeg(seed, (64, 64)) for seed in range(5)]
    array = photo.images(files)
    decoded = [np.asarray(Image.open(io.BytesIO(file)), np.float32) / 255 for file in files]
    expected = np.stack(decoded).transpose(0, 3, 1, 2)
    # The inverse transforms of two decoders differ by some steps of 255.
    difference = np.abs(array - expected)
    assert array.shape == (5, 3, 64, 64) and difference.max() < 4.5 / 255 and difference.mean() < 0.5 / 255

    latents = photo.encode(array)
    assert latents.dtype == np.float32 and latents.shape == (5, photo.code_size)
    np.testing.assert_allclose(latents, onnx(root / "models/photo-ae/encoder.onnx", array), atol=1e-5)
    output = photo.reconstruct(array)
    np.testing.assert_allclose(output, onnx(root / "models/photo-ae/decoder.onnx", latents), atol=1e-5)
    errors = ((output - array) ** 2).reshape(5, -1).mean(1)
    np.testing.assert_allclose(photo.error(array), errors, rtol=1e-5)


def test_row_that_is_not_finite_is_nan_and_others_are_not(photo):
    array = photo.images([jpeg(seed) for seed in range(4)])
    expected = photo.encode(array)
    array[2, 0, 5, 5] = np.inf
    for threads in (1, 3):
        latents = latentflow.Model(photo.path, threads=threads).encode(array)
        assert np.isnan(latents[2]).all()
        np.testing.assert_array_equal(np.delete(latents, 2, 0), np.delete(expected, 2, 0))
    assert np.isnan(photo.reconstruct(array)[2]).all() and np.isnan(photo.error(array)[2])


def test_large_arrays_are_cut_and_keep_their_order(photo, monkeypatch):
    array = photo.images([jpeg(seed) for seed in range(7)])
    expected = photo.encode(array)
    monkeypatch.setattr("latentflow._model._SLICE_VALUES", 2 * array[0].size)
    monkeypatch.setattr("latentflow._model._SLICE_BYTES", 1)
    np.testing.assert_array_equal(latentflow.Model(photo.path, threads=2).encode(array), expected)
    np.testing.assert_array_equal(photo.images(jpeg(seed) for seed in range(7)), array)
    assert photo.encode(np.empty((0, 3, 64, 64))).shape == (0, 128)
    assert photo.images([]).shape == (0, 3, 64, 64)


def test_denoiser_takes_images_of_any_size(root, tmp_path):
    denoiser = latentflow.Model(root / "models/photo-denoise-gray")
    (tmp_path / "a.jpg").write_bytes(jpeg(1, (90, 50)))
    array = denoiser.images([tmp_path / "a.jpg", jpeg(2, (90, 50))])
    assert denoiser.input_shape is None and array.shape == (2, 1, 50, 90)
    output = denoiser.reconstruct(array)
    np.testing.assert_allclose(output, onnx(root / "models/photo-denoise-gray/model.onnx", array), atol=2e-3)
    errors = ((output - array) ** 2).reshape(2, -1).mean(1)
    np.testing.assert_allclose(denoiser.error(array), errors, rtol=1e-5)
    with pytest.raises(ValueError, match="returns no latent"):
        denoiser.encode(array)
    with pytest.raises(ValueError, match="pass images of one size"):
        denoiser.images([jpeg(1, (90, 50)), jpeg(1, (50, 90))])


def test_faults_of_arrays_and_files_are_named(photo, tmp_path):
    with pytest.raises(ValueError, match=r"x has the shape \[2, 3, 32, 32\]; expected \[n, 3, 64, 64\]"):
        photo.encode(np.zeros((2, 3, 32, 32)))
    with pytest.raises(latentflow.RejectedRecords, match="at index 1") as raised:
        photo.images([jpeg(1), b"not an image"])
    assert len(raised.value.rejects) == 1
    with pytest.raises(ValueError, match="no such folder"):
        latentflow.Model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="photo-ae: the model `model` does not take feature records"):
        photo.features(pa.table({"a": [1.0]}))


def test_encode_takes_files_and_tables(photo, tmp_path):
    table = images(6)
    expected = pa.table(latentflow.encode(table, photo))
    assert expected.column_names == ["source", "row", "latent", "rejected"]
    files = []
    for name, data in zip(table["source"].to_pylist(), table["image"].to_pylist()):
        (tmp_path / name).write_bytes(data)
        files.append(tmp_path / name)
    result = pa.table(latentflow.encode(files, photo.path))
    assert result["latent"].equals(expected["latent"])
    assert result["source"].to_pylist() == [str(file) for file in files]
    records, rejects = latentflow.encode(files, photo, reconstruct=True, rejects="separate", threads=2)
    assert (len(records), len(rejects)) == (5, 1) and "reconstruction_error" in records.column_names


def test_encode_keeps_other_columns_and_takes_structs_of_images(photo):
    table = images(4)
    pairs = [{"bytes": data, "path": None} for data in table["image"].to_pylist()]
    pairs[1] = None
    labeled = pa.table({"image": pa.array(pairs, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "label": [3, 1, 4, 1]})
    result = latentflow.encode(labeled, photo)
    assert result.column_names == ["label", "latent", "rejected"] and result["label"].to_pylist() == [3, 1, 4, 1]
    codes = [reject and reject["code"] for reject in result["rejected"].to_pylist()]
    assert codes == [None, "missing", "unsupported", None]
    assert result["latent"][3].as_py() == latentflow.encode(table, photo)["latent"][3].as_py()


def test_streams_that_can_be_read_once_are_encoded(photo, root):
    table = images(5)
    expected = pa.table(latentflow.encode(table, photo))["latent"].to_pylist()
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2))
    assert pa.table(latentflow.encode(reader, photo))["latent"].to_pylist() == expected
    model = latentflow.Model(root / "models/kdd-ae")
    values = pa.table({name: [1.0, 2.0] for name in model.columns})
    np.testing.assert_array_equal(model.features(values.to_reader()), model.features(values))
    # The results of one pipeline are the input of another one.
    decoded = latentflow.Pipeline(DECODE, base=root, rejects="drop").stream(table.to_batches(max_chunksize=2))
    assert len(latentflow.Pipeline(DROPPED, input=pa.schema(decoded)).transform(decoded)) == 4


DECODE = """
[stages.in]
kind = "images"
path = "nowhere"
[stages.pixels]
kind = "pixels"
inputs = ["in"]
size = [8, 8]
[stages.out]
kind = "discard"
inputs = ["pixels"]
"""
DROPPED = """
[stages.in]
kind = "embedded"
[stages.kept]
kind = "select"
inputs = ["in"]
columns = ["source"]
[stages.out]
kind = "discard"
inputs = ["kept"]
"""


def test_features_are_scaled_as_in_the_training(root):
    model = latentflow.Model(root / "models/kdd-ae")
    values = np.random.default_rng(0).random((10, len(model.columns)))
    frame = pd.DataFrame(values, columns=model.columns)[model.columns[::-1]]
    array = model.features(frame)
    scaling = model.card["input"]
    if scaling["scaling"] == "standard":
        expected = (values - np.array(scaling["mean"])) / np.array(scaling["std"])
    else:
        low, high = np.array(scaling["min"]), np.array(scaling["max"])
        width = np.where(high > low, high - low, 1)
        expected = (values - low) / width
    np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)
    latents = latentflow.encode(frame, model).to_pyarrow()["latent"].combine_chunks().flatten()
    np.testing.assert_array_equal(np.asarray(latents).reshape(10, -1), model.encode(array))
    frame.iloc[4, 0] = None
    with pytest.raises(latentflow.RejectedRecords, match="at index 4"):
        model.features(frame)


def test_model_is_pickled_by_its_path_and_shown_as_its_card(photo, root):
    copy = pickle.loads(pickle.dumps(photo))
    assert (copy.digest, copy.threads, copy.name) == (photo.digest, photo.threads, "photo-ae")
    html = photo._repr_html_()
    assert "<h3>photo-ae</h3>" in html and photo.card["training"]["license"].split()[0] in html


EMBEDDED = """
import pickle, sys
pipeline = pickle.loads(bytes.fromhex(sys.stdin.readline()))
table = pickle.loads(bytes.fromhex(sys.stdin.readline()))
print(pipeline.transform(table)["latent"].to_pylist())
"""


def test_embedded_models_need_no_path_in_other_processes(root, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(root / "models/photo-ae", models / "photo-ae")
    pipeline = latentflow.Pipeline(PHOTOS, base=tmp_path, rejects="drop", models="embed")
    table = images(3)
    expected = pipeline.transform(table)["latent"].to_pylist()
    pickled = pickle.dumps(pipeline)
    assert len(pickle.dumps(latentflow.Pipeline(PHOTOS, base=tmp_path))) < 2000 < len(pickled)
    shutil.rmtree(models)
    lines = f"{pickled.hex()}\n{pickle.dumps(table).hex()}\n"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", EMBEDDED], input=lines, capture_output=True, text=True, env=environment, check=True
        )
        assert run.stdout.strip() == str(expected)
    (folder,) = tmp_path.glob("latentflow-models-*")
    assert folder.stat().st_mode & 0o777 == 0o700 and len(list(folder.iterdir())) == 1
    folder.chmod(0o755)
    run = subprocess.run([sys.executable, "-c", EMBEDDED], input=lines, capture_output=True, text=True, env=environment)
    assert run.returncode == 1 and "other users can access this folder" in run.stderr
