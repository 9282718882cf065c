#!/usr/bin/env python3
"""The program for Ray Data: `map_batches` with one session per actor.

usage: ray_data.py images FOLDER MODEL OUT SIDE rgb|gray [MEAN STD]
       ray_data.py records FILE MODEL OUT COLUMNS
MODEL may be the file of an encoder. MEAN and STD have one number per channel: 0.5,0.5,0.5
"""
import io
import os
import pathlib
import sys
import tomllib

import numpy
import onnxruntime
import ray
from PIL import Image

CORES = len(os.sched_getaffinity(0))


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Images:
    def __init__(self, model, side, mode, mean, std):
        self.encoder, self.side, self.mode = session(model if model.endswith(".onnx") else f"{model}/encoder.onnx"), side, mode
        self.mean, self.std = (numpy.array(values.split(","), numpy.float32) if values else None for values in (mean, std))

    def __call__(self, batch):
        pixels = []
        for data in batch["bytes"]:
            image = Image.open(io.BytesIO(data)).convert(self.mode).resize((self.side, self.side), Image.Resampling.BILINEAR)
            array = numpy.asarray(image, dtype=numpy.float32) / 255
            if self.mean is not None:
                array = (array - self.mean) / self.std
            pixels.append(array[None] if self.mode == "L" else array.transpose(2, 0, 1))
        latents = self.encoder.run(None, {self.encoder.get_inputs()[0].name: numpy.stack(pixels)})[0]
        names = [os.path.basename(path) for path in batch["path"]]
        return {"source": names, "row": numpy.zeros(len(names), numpy.uint64), "latent": latents}


class Records:
    def __init__(self, model, columns):
        self.columns = columns
        card = tomllib.loads(pathlib.Path(model, "model.toml").read_text())
        self.mean, self.std = (numpy.array(card["input"][name], numpy.float32) for name in ("mean", "std"))
        self.encoder, self.decoder = session(f"{model}/encoder.onnx"), session(f"{model}/decoder.onnx")

    def __call__(self, batch):
        values = numpy.stack(batch["x"]) if self.columns == 1 else numpy.stack(list(batch.values()), axis=1)
        scaled = (values.astype(numpy.float32) - self.mean) / self.std
        latents = self.encoder.run(None, {self.encoder.get_inputs()[0].name: scaled})[0]
        back = self.decoder.run(None, {self.decoder.get_inputs()[0].name: latents})[0]
        return {"latent": latents, "reconstruction_error": ((scaled - back) ** 2).mean(axis=1)}


def main():
    what, source, model, out, *rest = sys.argv[1:]
    # One CPU per actor, and the same number for the tasks that read and write: with fewer, no CPU is left for reading.
    ray.init(num_cpus=2 * CORES, logging_level="error", log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if what == "images":
        data = ray.data.read_binary_files(source, include_paths=True)
        work, arguments, size = Images, (model, int(rest[0]), "L" if rest[1] == "gray" else "RGB", *(rest[2:] or [None, None])), 32
    else:
        data = ray.data.read_parquet(source)
        work, arguments, size = Records, (model, int(rest[0])), 8192
    data.map_batches(work, fn_constructor_args=arguments, batch_size=size, concurrency=CORES).write_parquet(out)


main()
