#!/usr/bin/env python3
"""The optimized Python program: one process per core, sessions with one thread, JPEGs decoded at a reduced size, Arrow without copies, and
objects of a bucket prefetched by 32 threads.

usage: expert.py images FOLDER MODEL OUT SIDE rgb|gray [MEAN STD]      OUT is a folder, with one file per process
       expert.py records FILE MODEL OUT COLUMNS
       expert.py denoise FOLDER MODEL OUT
FOLDER may be the URL of a prefix in a bucket, and MODEL the file of an encoder. MEAN and STD have one number per channel: 0.5,0.5,0.5
"""
import collections
import concurrent.futures
import io
import itertools
import multiprocessing
import os
import pathlib
import sys
import tomllib

import numpy
import onnxruntime
import pyarrow
import pyarrow.parquet
from PIL import Image

import bucket

CORES = len(os.sched_getaffinity(0))
FETCHES = 32


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def fixed(values):
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), values.shape[1])


def writer(out, part, schema):
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    floats = ["latent.list.element", "reconstruction_error"]
    encodings = {"column_encoding": {name: "BYTE_STREAM_SPLIT" for name in floats if name.split(".")[0] in schema.names}}
    return pyarrow.parquet.ParquetWriter(
        f"{out}/part-{part:05}.parquet", schema, compression="zstd", compression_level=1, use_dictionary=["source"],
        **encodings,
    )


def read(folder, names):
    """The names of images, with the place or the content of each."""
    if not folder.startswith("http:"):
        yield from ((name, f"{folder}/{name}") for name in names)
        return
    store = bucket.Bucket(folder)
    with concurrent.futures.ThreadPoolExecutor(FETCHES) as pool:
        waiting = collections.deque()
        for name in names:
            waiting.append((name, pool.submit(store.get, name)))
            if len(waiting) == 2 * FETCHES:
                name, content = waiting.popleft()
                yield name, io.BytesIO(content.result())
        for name, content in waiting:
            yield name, io.BytesIO(content.result())


def images_part(part, folder, names, model, out, side, mode, mean, std):
    encoder = session(model if model.endswith(".onnx") else f"{model}/encoder.onnx")
    name, code = encoder.get_inputs()[0].name, encoder.get_outputs()[0].shape[-1]
    channels = 1 if mode == "L" else 3
    schema = pyarrow.schema([("source", pyarrow.string()), ("row", pyarrow.uint64()), ("latent", pyarrow.list_(pyarrow.float32(), code))])
    buffer = numpy.empty((32, channels, side, side), numpy.float32)
    # One multiplication and one addition per value: (x / 255 - mean) / std.
    mean, std = (numpy.array(values, numpy.float32).reshape(-1, 1, 1) for values in (mean, std))
    scale, offset = numpy.float32(1 / 255) / std, -mean / std
    with writer(out, part, schema) as sink:
        for batch in batches(read(folder, names), 32):
            for place, (_, file) in enumerate(batch):
                with Image.open(file) as image:
                    # Decodes JPEGs at a fraction of their size, never below the target.
                    image.draft(mode, (side, side))
                    small = image.convert(mode).resize((side, side), Image.Resampling.BILINEAR)
                pixels = numpy.asarray(small)
                numpy.multiply(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1), scale, out=buffer[place])
                if offset.any():
                    buffer[place] += offset
            latents = encoder.run(None, {name: buffer[: len(batch)]})[0]
            columns = [pyarrow.array([name for name, _ in batch]), pyarrow.array(numpy.zeros(len(batch), numpy.uint64)), fixed(latents)]
            sink.write_batch(pyarrow.record_batch(columns, schema=schema))


def batches(items, size):
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def images(folder, model, out, side, mode, mean="0", std="1"):
    names = bucket.Bucket(folder).names() if folder.startswith("http:") else sorted(os.listdir(folder))
    shares = [names[part::CORES] for part in range(CORES)]
    mode, mean, std = "L" if mode == "gray" else "RGB", *([float(value) for value in values.split(",")] for values in (mean, std))
    run(images_part, [(part, folder, share, model, out, int(side), mode, mean, std) for part, share in enumerate(shares)])


def records_part(part, file, groups, firsts, model, out, columns):
    card = tomllib.loads(pathlib.Path(model, "model.toml").read_text())
    mean, std = numpy.array(card["input"]["mean"], numpy.float32), numpy.array(card["input"]["std"], numpy.float32)
    encoder, decoder = session(f"{model}/encoder.onnx"), session(f"{model}/decoder.onnx")
    names = encoder.get_inputs()[0].name, decoder.get_inputs()[0].name
    code = encoder.get_outputs()[0].shape[-1]
    schema = pyarrow.schema([("row", pyarrow.uint64()), ("latent", pyarrow.list_(pyarrow.float32(), code)), ("reconstruction_error", pyarrow.float32())])
    source = pyarrow.parquet.ParquetFile(file)
    with writer(out, part, schema) as sink:
        for group, first in zip(groups, firsts):
            row = first
            for batch in source.iter_batches(8192, row_groups=[group], use_threads=False):
                if columns == 1:
                    values = batch.column(0).flatten().to_numpy().reshape(len(batch), -1)
                else:
                    values = numpy.empty((len(batch), columns), numpy.float32)
                    for place, column in enumerate(batch.columns):
                        values[:, place] = column.to_numpy()
                scaled = (values - mean) / std
                latents = encoder.run(None, {names[0]: scaled})[0]
                scaled -= decoder.run(None, {names[1]: latents})[0]
                errors = numpy.einsum("ij,ij->i", scaled, scaled) / numpy.float32(scaled.shape[1])
                rows = pyarrow.array(numpy.arange(row, row + len(batch), dtype=numpy.uint64))
                sink.write_batch(pyarrow.record_batch([rows, fixed(latents), pyarrow.array(errors)], schema=schema))
                row += len(batch)


def records(file, model, out, columns):
    metadata = pyarrow.parquet.ParquetFile(file).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    firsts = [sum(sizes[:group]) for group in range(len(sizes))]
    shares = [list(range(part, len(sizes), CORES)) for part in range(CORES)]
    run(records_part, [(part, file, share, [firsts[group] for group in share], model, out, int(columns)) for part, share in enumerate(shares)])


def denoise_part(files, model, out):
    denoiser = session(f"{model}/model.onnx")
    name = denoiser.get_inputs()[0].name
    for file in files:
        with Image.open(file) as image:
            pixels = numpy.asarray(image.convert("RGB")).transpose(2, 0, 1)
        height, width = pixels.shape[1:]
        even = numpy.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
        clean = denoiser.run(None, {name: even[None] * numpy.float32(1 / 255)})[0][0, :, :height, :width]
        numpy.clip(clean, 0, 1, out=clean)
        clean = numpy.rint(clean * numpy.float32(255)).astype(numpy.uint8).transpose(1, 2, 0)
        Image.fromarray(clean).save(f"{out}/{file.stem}.png", compress_level=1)


def denoise(folder, model, out):
    files = sorted(pathlib.Path(folder).iterdir())
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    run(denoise_part, [(files[part::CORES], model, out) for part in range(CORES)])


def run(work, parts):
    workers = [multiprocessing.get_context("spawn").Process(target=work, args=part) for part in parts]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    sys.exit(max(worker.exitcode for worker in workers))


if __name__ == "__main__":
    {"images": images, "records": records, "denoise": denoise}[sys.argv[1]](*sys.argv[2:])
