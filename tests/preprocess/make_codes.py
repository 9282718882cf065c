"""Writes two small models with random weights, as their libraries save them, and the codes that PyTorch computes with them.

    python -m venv venv && venv/bin/pip install torch torchvision transformers timm onnx onnxscript
    venv/bin/python tests/preprocess/make_codes.py
    venv/bin/python tests/preprocess/make_codes.py photographs target/release/latentflow

With a folder of photographs and the program, it compares the codes of latentflow with those of PyTorch instead.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.dataset
import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from timm.models.resnet import BasicBlock, ResNet
from transformers import ViTConfig, ViTImageProcessor, ViTModel

FOLDER = Path(__file__).resolve().parent / "codes"

# Height and width; one is smaller than the input of a model, and one side is odd.
SIZES = [[61, 83], [120, 40], [25, 31]]


def image(height: int, width: int) -> Image.Image:
    """The image that the test makes as well."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return Image.fromarray(((7 * x + 5 * y * (c + 1) + (x * y // 3) * (2 - c)) % 256).astype(np.uint8))


class ViT(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
                           initializer_range=0.3)
        self.model = ViTModel(config, add_pooling_layer=False)
        self.processor = ViTImageProcessor(size={"height": 32, "width": 32})

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels).last_hidden_state[:, 0]

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        return self.processor(picture, return_tensors="pt")["pixel_values"]

    def save(self, folder: Path) -> Path:
        self.processor.save_pretrained(folder)
        return folder / "preprocessor_config.json"


class TimmResNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=0, channels=(8, 8, 8, 8), stem_width=8)
        for name, buffer in self.model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
        self.model.pretrained_cfg = {
            "architecture": "resnet", "input_size": (3, 48, 48), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center",
            "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "num_classes": 0, "first_conv": "conv1", "classifier": "fc",
        }

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels)

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        settings = timm.data.resolve_data_config({}, model=self.model)
        return timm.data.create_transform(**settings)(picture)[None]

    def save(self, folder: Path) -> Path:
        save_for_hf(self.model, folder)
        for weights in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
            weights.unlink()
        return folder / "config.json"


def codes(model: torch.nn.Module, pictures: list) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([model(model.prepare(picture)).numpy() for picture in pictures])


def export(model: torch.nn.Module, folder: Path) -> None:
    example = model.prepare(image(*SIZES[0]))
    torch.onnx.export(model, (example,), folder / "encoder.onnx", input_names=["pixels"], output_names=["code"], dynamo=False,
                      dynamic_axes={"pixels": {0: "batch"}, "code": {0: "batch"}})


def compare(model: torch.nn.Module, settings: Path, folder: Path, program: Path, photographs: Path) -> None:
    files = sorted(photographs.glob("*.jpg"))
    pipeline = f"""
    [models.m]
    encoder = {json.dumps(str(folder / "encoder.onnx"))}
    preprocessor = {json.dumps(str(settings))}
    [stages.photographs]
    kind = "images"
    path = {json.dumps(str(photographs / "*.jpg"))}
    [stages.pixels]
    kind = "pixels"
    inputs = ["photographs"]
    model = "m"
    [stages.codes]
    kind = "encode"
    inputs = ["pixels"]
    model = "m"
    [stages.out]
    kind = "parquet"
    inputs = ["codes"]
    path = "out"
    """
    (folder / "p.toml").write_text(pipeline)
    subprocess.run([program.resolve(), "run", "p.toml"], cwd=folder, check=True, capture_output=True)
    rows = pyarrow.dataset.dataset(folder / "out").to_table(["source", "latent"]).sort_by("source")
    assert [Path(source).name for source in rows["source"].to_pylist()] == [file.name for file in files]
    expected = codes(model, [Image.open(file).convert("RGB") for file in files])
    difference = np.abs(np.array(rows["latent"].to_pylist()) - expected).max()
    print(f"{folder.name}: {len(files)} photographs, greatest difference {difference:.1e}, values from {expected.min():.2f} to "
          f"{expected.max():.2f}")
    assert difference < 1e-3


def main() -> None:
    torch.manual_seed(7)
    models = {"vit": ViT(), "resnet": TimmResNet()}
    compares = len(sys.argv) == 3
    target = Path(tempfile.mkdtemp()) if compares else FOLDER
    expected = {}
    for name, model in models.items():
        model.eval()
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        export(model, folder)
        settings = model.save(folder)
        if compares:
            compare(model, settings, folder, Path(sys.argv[2]), Path(sys.argv[1]))
        else:
            values = codes(model, [image(*size) for size in SIZES])
            expected[name] = [[round(float(value), 6) for value in row] for row in values]
    if not compares:
        document = {"images": SIZES, "codes": expected}
        (FOLDER / "codes.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
