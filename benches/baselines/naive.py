#!/usr/bin/env python3
"""The simple Python program: one process, Pillow, ONNX Runtime with its defaults, PyArrow.

usage: naive.py images FOLDER MODEL OUT SIDE rgb|gray [MEAN STD]
       naive.py records FILE MODEL OUT COLUMNS
       naive.py denoise FOLDER MODEL OUT
FOLDER may be the URL of a prefix in a bucket, and MODEL the file of an encoder. MEAN and STD have one number per channel: 0.5,0.5,0.5
"""
import io
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


def images(folder, model, out, side, mode, mean=None, std=None):
    session = onnxruntime.InferenceSession(model if model.endswith(".onnx") else f"{model}/encoder.onnx")
    name = session.get_inputs()[0].name
    side, mode = int(side), "L" if mode == "gray" else "RGB"
    mean, std = (numpy.array(values.split(","), numpy.float32) if values else None for values in (mean, std))
    store = bucket.Bucket(folder) if folder.startswith("http:") else None
    sources, latents = store.names() if store else sorted(os.listdir(folder)), []
    for start in range(0, len(sources), 32):
        batch = []
        for source in sources[start : start + 32]:
            file = io.BytesIO(store.get(source)) if store else f"{folder}/{source}"
            image = Image.open(file).convert(mode).resize((side, side), Image.Resampling.BILINEAR)
            pixels = numpy.asarray(image, dtype=numpy.float32) / 255
            if mean is not None:
                pixels = (pixels - mean) / std
            batch.append(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1))
        latents.extend(session.run(None, {name: numpy.stack(batch)})[0].tolist())
    table = {"source": sources, "row": [0] * len(sources), "latent": pyarrow.array(latents, pyarrow.list_(pyarrow.float32()))}
    pyarrow.parquet.write_table(pyarrow.table(table), out, compression="zstd")


def records(file, model, out, columns):
    card = tomllib.loads(pathlib.Path(model, "model.toml").read_text())
    mean, std = numpy.array(card["input"]["mean"], numpy.float32), numpy.array(card["input"]["std"], numpy.float32)
    encoder = onnxruntime.InferenceSession(f"{model}/encoder.onnx")
    decoder = onnxruntime.InferenceSession(f"{model}/decoder.onnx")
    table = pyarrow.parquet.read_table(file)
    if int(columns) == 1:
        values = numpy.stack(table["x"].to_numpy())
    else:
        values = table.to_pandas().to_numpy()
    latents, errors = [], []
    for start in range(0, len(values), 8192):
        scaled = (values[start : start + 8192] - mean) / std
        code = encoder.run(None, {encoder.get_inputs()[0].name: scaled})[0]
        back = decoder.run(None, {decoder.get_inputs()[0].name: code})[0]
        latents.extend(code.tolist())
        errors.extend(((scaled - back) ** 2).mean(axis=1).tolist())
    table = {
        "row": range(len(values)),
        "latent": pyarrow.array(latents, pyarrow.list_(pyarrow.float32())),
        "reconstruction_error": pyarrow.array(errors, pyarrow.float32()),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), out, compression="zstd")


def denoise(folder, model, out):
    session = onnxruntime.InferenceSession(f"{model}/model.onnx")
    name = session.get_inputs()[0].name
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    for file in sorted(pathlib.Path(folder).iterdir()):
        pixels = numpy.asarray(Image.open(file).convert("RGB"), dtype=numpy.float32) / 255
        height, width, _ = pixels.shape
        even = numpy.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        clean = session.run(None, {name: even.transpose(2, 0, 1)[None]})[0][0, :, :height, :width]
        clean = (clean.transpose(1, 2, 0).clip(0, 1) * 255).round().astype(numpy.uint8)
        Image.fromarray(clean).save(f"{out}/{file.stem}.png")


{"images": images, "records": records, "denoise": denoise}[sys.argv[1]](*sys.argv[2:])
