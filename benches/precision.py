#!/usr/bin/env python3
"""Compares a model in int8 and float16 with the original: its speed in a pipeline, and the deviation of its latents.

Converts the encoder of `--model` with ONNX Runtime's own tools (static quantization, calibrated on the first 200
images), runs all three models in pipelines over the same images, and prints records per second, CPU seconds, and the change of the
latents: the root of the mean square, relative to that of the latents, and the share of nearest neighbors that stay the same.
Run compare.py first: it generates the images and installs the Python packages.

usage: precision.py [--model models/photo-ae] [--images .bench/data/481x321-rgb-4000] [--rounds 3]
"""
import argparse
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import time

from workloads import BENCH, HERE, PYTHON, REPOSITORY, WORKLOADS, call, pipeline

MAKE = """
import pathlib, sys, numpy, onnx
from PIL import Image
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
encoder, images, out = map(pathlib.Path, sys.argv[1:])
model = onnx.load(encoder)
tensor = model.graph.input[0]
_, channels, height, width = (dim.dim_value for dim in tensor.type.tensor_type.shape.dim)
class Calibration(CalibrationDataReader):
    def __init__(self):
        self.files = iter(sorted(images.iterdir())[:200])
    def get_next(self):
        file = next(self.files, None)
        if file is None: return None
        image = Image.open(file).convert("RGB" if channels == 3 else "L").resize((width, height), Image.Resampling.BILINEAR)
        pixels = numpy.asarray(image, numpy.float32).reshape(height, width, channels) / 255
        return {tensor.name: pixels.transpose(2, 0, 1)[None]}
quant_pre_process(encoder, out / "prepared.onnx")
quantize_static(out / "prepared.onnx", out / "int8.onnx", Calibration(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)
onnx.save(convert_float_to_float16(model), out / "float16.onnx")
"""

COMPARE = """
import sys, numpy, pyarrow.dataset
def latents(place):
    table = pyarrow.dataset.dataset(place, exclude_invalid_files=True).to_table().sort_by("source").slice(0, 4000)
    return numpy.stack(table["latent"].to_numpy(zero_copy_only=False))
def nearest(latents):
    distances = (latents**2).sum(1)[:, None] - 2 * latents @ latents.T + (latents**2).sum(1)
    numpy.fill_diagonal(distances, numpy.inf)
    return numpy.argsort(distances, axis=1)[:, :5]
ours, theirs = latents(sys.argv[1]), latents(sys.argv[2])
change = numpy.sqrt(((ours - theirs) ** 2).mean() / ((ours - ours.mean(0)) ** 2).mean())
same = numpy.mean([len(set(a) & set(b)) / 5 for a, b in zip(nearest(ours), nearest(theirs))])
print(f"{change:>10.4f}{100 * same:>11.1f} %")
"""


def run(encoder, images, out):
    (BENCH / "precision.toml").write_text(pipeline(WORKLOADS["photos"], images, encoder, out))
    shutil.rmtree(out, ignore_errors=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    call(REPOSITORY / "target/release/latentflow", "run", BENCH / "precision.toml", "--summary", "none", stderr=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=REPOSITORY / "models/photo-ae")
    parser.add_argument("--images", type=pathlib.Path, default=BENCH / "data/481x321-rgb-4000")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["ORT_DYLIB_PATH"] = str(next((REPOSITORY / ".runtime/onnxruntime").glob("libonnxruntime.*")))
    call(PYTHON, "-m", "pip", "install", "-q", "-r", HERE / "baselines/requirements-precision.txt")
    made = BENCH / "precision"
    made.mkdir(exist_ok=True)
    encoder = options.model / "encoder.onnx"
    call(PYTHON, "-c", MAKE, encoder, options.images, made, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    variants = {"float32": encoder.resolve(), "float16": made / "float16.onnx", "int8": made / "int8.onnx"}
    count, times = sum(1 for _ in options.images.iterdir()), {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, file in variants.items():
            times[name].append(run(file, options.images.resolve(), made / f"out-{name}"))
    print(f"{'':<10}{'records/s':>11}{'CPU s':>9}{'file KiB':>10}{'change':>10}{'same of 5':>13}")
    for name, file in variants.items():
        seconds, cpu = (statistics.median(column) for column in zip(*times[name]))
        words = [PYTHON, "-c", COMPARE, made / "out-float32", made / f"out-{name}"]
        change = subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip()
        print(f"{name:<10}{count / seconds:>11.0f}{cpu:>9.1f}{file.stat().st_size / 1024:>10.0f}{change}")


main()
