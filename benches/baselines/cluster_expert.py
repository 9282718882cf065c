"""The optimized programs for Spark and Ray: sessions with one thread that are opened once per process, JPEGs decoded at a reduced
size, and Arrow columns without copies. clusters.py runs them."""
import functools
import pathlib
import tomllib

import numpy
import onnxruntime
import pyarrow
from PIL import Image


@functools.cache
def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    found = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return found, found.get_inputs()[0].name


def run(path, values):
    found, name = session(path)
    return found.run(None, {name: values})[0]


def lists(values):
    """Latents as lists of variable length, which Spark requires."""
    offsets = pyarrow.array(numpy.arange(0, values.size + 1, values.shape[1], dtype=numpy.int32))
    return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values.reshape(-1)))


def photos(model, names, images, side=64):
    """The latents of encoded images."""
    buffer, latents = numpy.empty((32, 3, side, side), numpy.float32), []
    for start in range(0, len(images), 32):
        part = images[start : start + 32]
        for place, data in enumerate(part):
            with Image.open(pyarrow.BufferReader(data.as_buffer())) as image:
                # Decodes JPEGs at a fraction of their size, never below the target.
                image.draft("RGB", (side, side))
                small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            numpy.multiply(numpy.asarray(small).transpose(2, 0, 1), numpy.float32(1 / 255), out=buffer[place])
        latents.append(run(f"{model}/encoder.onnx", buffer[: len(part)]))
    return pyarrow.table({"source": names, "latent": lists(numpy.concatenate(latents))})


@functools.cache
def scaling(model):
    card = tomllib.loads(pathlib.Path(model, "model.toml").read_text())["input"]
    low, high = (numpy.array(card[name], numpy.float64) for name in ("min", "max"))
    return card["columns"], low, numpy.where(high > low, high - low, 1)


def records(model, table):
    """The latents and the errors of feature records."""
    columns, low, width = scaling(model)
    latents, errors = [], []
    for start in range(0, len(table), 8192):
        part = table.slice(start, 8192)
        values = numpy.empty((len(part), len(columns)), numpy.float32)
        for place, name in enumerate(columns):
            column = part.column(name)
            column = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
            values[:, place] = (column.to_numpy(zero_copy_only=False) - low[place]) / width[place]
        codes = run(f"{model}/encoder.onnx", values)
        values -= run(f"{model}/decoder.onnx", codes)
        latents.append(codes)
        errors.append(numpy.einsum("ij,ij->i", values, values) / numpy.float32(len(columns)))
    return pyarrow.table({"latent": lists(numpy.concatenate(latents)), "reconstruction_error": numpy.concatenate(errors)})


def spark_photos(model, batches):
    for batch in batches:
        yield from photos(model, batch.column("path"), batch.column("content")).to_batches()


def spark_records(model, batches):
    for batch in batches:
        yield from records(model, batch).to_batches()


class RayPhotos:
    def __init__(self, model):
        self.model = model

    def __call__(self, table):
        return photos(self.model, table["path"], table["bytes"].combine_chunks())


class RayRecords:
    def __init__(self, model):
        self.model = model

    def __call__(self, table):
        return records(self.model, table)
