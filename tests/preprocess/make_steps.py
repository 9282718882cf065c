"""Preprocesses two images as the libraries do it that models are trained with, and writes steps.json.

    python -m venv venv && venv/bin/pip install pillow torch torchvision transformers opencv-python-headless tensorflow-cpu
    venv/bin/pip install timm
    venv/bin/python tests/preprocess/make_steps.py

Each case holds options of the stage `pixels`, or the file that the library writes for a model, and the values that the library returned.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def images() -> list:
    made = []
    for height, width, seed in [(31, 40, 1), (50, 23, 2)]:
        y, x = np.mgrid[0:height, 0:width]
        noise = np.random.default_rng(seed).integers(-50, 51, (height, width, 3))
        values = np.stack([5 * y + 2 * x, 250 - 4 * x, 90 + 3 * ((x * y) % 40)], axis=-1) + noise
        values[height // 3:height // 2, width // 2:] = [255, 0, 255]
        made.append(np.clip(values, 0, 255).astype(np.uint8))
    return made


def torch_cases(pixels: np.ndarray) -> list:
    import torch
    from PIL import Image
    from torchvision.transforms import InterpolationMode, v2

    image = Image.fromarray(pixels)
    standardize = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**IMAGENET)]

    def steps(size, crop, name, mode, library, transforms):
        value = v2.Compose(transforms + standardize)(image)
        return {"name": name, "options": IMAGENET | {"steps": [
            {"op": "resize", "size": size, "side": "shorter", "filter": mode, "library": library},
            {"op": "center_crop", "size": crop, "rounding": "even"},
        ]}, "values": value.numpy()}

    as_tensor = [v2.PILToTensor()]
    on_tensor = v2.Compose(as_tensor + [v2.Resize(20, InterpolationMode.BICUBIC, antialias=False), v2.CenterCrop(15)])(image)
    plain = (on_tensor.float() / 255).numpy()
    return [
        steps(20, 16, "torchvision, Pillow", "bilinear", "pillow", [v2.Resize(20), v2.CenterCrop(16)]),
        steps(21, 16, "torchvision, Pillow, bicubic", "bicubic", "pillow", [v2.Resize(21, InterpolationMode.BICUBIC), v2.CenterCrop(16)]),
        steps(9, 18, "torchvision, crop larger than the image", "bilinear", "pillow", [v2.Resize(9), v2.CenterCrop(18)]),
        {"name": "torchvision, tensors without antialiasing", "options": {"steps": [
            {"op": "resize", "size": 20, "side": "shorter", "filter": "bicubic", "library": "torchvision", "antialias": False},
            {"op": "center_crop", "size": 15, "rounding": "even"},
        ]}, "values": plain},
    ]


def transformers_cases(pixels: np.ndarray) -> list:
    from PIL import Image
    from transformers import BitImageProcessor, CLIPImageProcessor, ViTImageProcessor

    image = Image.fromarray(pixels)
    processors = {
        "transformers, ViT": ViTImageProcessor(size={"height": 18, "width": 14}),
        "transformers, CLIP": CLIPImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}),
        "transformers, DINOv2": BitImageProcessor(size={"shortest_edge": 21}, crop_size={"height": 16, "width": 16}, resample=3),
    }
    cases = []
    for name, processor in processors.items():
        with tempfile.TemporaryDirectory() as folder:
            processor.save_pretrained(folder)
            text = Path(folder, "preprocessor_config.json").read_text()
        values = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
        cases.append({"name": name, "file": text, "values": values})
    return cases


def timm_cases(pixels: np.ndarray) -> list:
    from PIL import Image
    from timm.data import create_transform

    cases = []
    for name, mode, share in [("center", "center", 0.8), ("squash", "squash", 1.0)]:
        config = {"input_size": [3, 16, 16], "interpolation": "bicubic", "crop_pct": share, "crop_mode": mode} | IMAGENET
        transform = create_transform(config["input_size"], interpolation="bicubic", crop_pct=share, crop_mode=mode, **IMAGENET)
        file = json.dumps({"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": config | {"tag": "own", "pool_size": None}})
        cases.append({"name": f"timm, {name}", "file": file, "values": transform(Image.fromarray(pixels)).numpy()})
    return cases


def opencv_cases(pixels: np.ndarray) -> list:
    import cv2

    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    small = cv2.resize(bgr, (12, 10), interpolation=cv2.INTER_AREA)
    large = cv2.resize(bgr, (48, 56), interpolation=cv2.INTER_CUBIC)
    step = {"op": "resize", "library": "opencv"}
    return [
        {"name": "OpenCV, area", "options": {"channels": "bgr", "steps": [step | {"size": [10, 12], "filter": "box"}]},
         "values": (small / 255).transpose(2, 0, 1)},
        {"name": "OpenCV, cubic", "options": {"channels": "bgr", "layout": "nhwc", "range": [0, 255],
                                              "steps": [step | {"size": [56, 48], "filter": "bicubic"}]},
         "values": large.astype(np.float32)},
    ]


def keras_cases(pixels: np.ndarray) -> list:
    import keras
    import tensorflow as tf

    resized = tf.image.resize(pixels, (16, 12)).numpy()
    step = {"op": "resize", "size": [16, 12], "library": "tensorflow"}
    caffe = keras.applications.resnet50.preprocess_input(resized.copy())
    scaled = keras.applications.mobilenet_v2.preprocess_input(resized.copy())
    return [
        {"name": "Keras, caffe", "options": {"preset": "keras-caffe", "steps": [step]}, "values": caffe},
        {"name": "Keras, tf", "options": {"preset": "keras-tf", "steps": [step]}, "values": scaled},
    ]


def pillow_cases(pixels: np.ndarray) -> list:
    from PIL import Image, ImageOps

    image = Image.fromarray(pixels)
    fitted = np.asarray(ImageOps.fit(image, (14, 14), Image.BILINEAR)) / 255
    width, height = image.size
    scale = 24 / max(image.size)
    short = image.resize((max(1, int(width * scale + 1e-9)), max(1, int(height * scale + 1e-9))), Image.LANCZOS)
    boxed = Image.new("RGB", (24, 24), (114, 114, 114))
    boxed.paste(short, ((24 - short.width) // 2, (24 - short.height) // 2))
    return [
        {"name": "Pillow, ImageOps.fit", "options": {"size": [14, 14], "fit": "crop"}, "values": fitted.transpose(2, 0, 1)},
        {"name": "Pillow, letterbox", "options": {"steps": [
            {"op": "resize", "size": 24, "side": "longer", "filter": "lanczos"},
            {"op": "pad", "size": 24, "value": 114, "rounding": "even"},
        ]}, "values": (np.asarray(boxed) / 255).transpose(2, 0, 1)},
    ]


GROUPS = {"torch": torch_cases, "transformers": transformers_cases, "timm": timm_cases, "opencv": opencv_cases, "keras": keras_cases, "pillow": pillow_cases}


def main() -> None:
    made = images()
    if sys.argv[1:]:
        for number, pixels in enumerate(made):
            for case in GROUPS[sys.argv[1]](pixels):
                values = np.asarray(case.pop("values"))
                case |= {"image": number, "shape": list(values.shape), "values": [round(float(value), 3) for value in values.ravel()]}
                print(json.dumps(case))
        return
    # Two of the libraries cannot be loaded into one process.
    lines = []
    for group in GROUPS:
        lines += subprocess.check_output([sys.executable, __file__, group], text=True).splitlines()
    shown = [{"height": pixels.shape[0], "width": pixels.shape[1], "rgb": pixels.ravel().tolist()} for pixels in made]
    text = '{"images": ' + json.dumps(shown) + ',\n"cases": [\n' + ",\n".join(line for line in lines if line.startswith("{")) + "\n]}\n"
    Path(__file__).with_name("steps.json").write_text(text)
    print(len(lines), "cases")


main()
