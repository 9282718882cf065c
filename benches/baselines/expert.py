#!/usr/bin/env python3
"""The optimized Python program: one process per core, sessions with one thread, JPEGs decoded at a reduced size, Arrow without copies.

usage: expert.py images FOLDER MODEL OUT SIDE rgb|gray      OUT is a folder, with one file per process
       expert.py records FILE MODEL OUT COLUMNS
       expert.py denoise FOLDER MODEL OUT
"""
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

CORES = len(os.sched_getaffinity(0))


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


def images_part(part, files, model, out, side, mode):
    encoder = session(f"{model}/encoder.onnx")
    name, code = encoder.get_inputs()[0].name, encoder.get_outputs()[0].shape[-1]
    channels = 1 if mode == "L" else 3
    schema = pyarrow.schema([("source", pyarrow.string()), ("row", pyarrow.uint64()), ("latent", pyarrow.list_(pyarrow.float32(), code))])
    buffer = numpy.empty((32, channels, side, side), numpy.float32)
    with writer(out, part, schema) as sink:
        for start in range(0, len(files), 32):
            names = files[start : start + 32]
            for place, file in enumerate(names):
                with Image.open(file) as image:
                    # Decodes JPEGs at a fraction of their size, never below the target.
                    image.draft(mode, (side, side))
                    small = image.convert(mode).resize((side, side), Image.Resampling.BILINEAR)
                pixels = numpy.asarray(small)
                numpy.multiply(pixels if mode == "L" else pixels.transpose(2, 0, 1), numpy.float32(1 / 255), out=buffer[place, 0] if mode == "L" else buffer[place])
            latents = encoder.run(None, {name: buffer[: len(names)]})[0]
            columns = [pyarrow.array([file.name for file in names]), pyarrow.array(numpy.zeros(len(names), numpy.uint64)), fixed(latents)]
            sink.write_batch(pyarrow.record_batch(columns, schema=schema))


def images(folder, model, out, side, mode):
    files = sorted(pathlib.Path(folder).iterdir())
    shares = [files[part::CORES] for part in range(CORES)]
    run(images_part, [(part, share, model, out, int(side), "L" if mode == "gray" else "RGB") for part, share in enumerate(shares)])


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
        Image.fromarray(clean).save(f"{out}/{file.name}.png", compress_level=1)


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
