"""PSNR of the color denoiser on photographs with Gaussian noise, next to other methods on the same pixels.

    pip install numpy pillow onnxruntime bm3d
    python3 benches/denoise_photos.py PHOTOS [--models models] [--sigma 15 25 50] [--bm3d]

For each standard deviation, the mean over the photographs (RGB, noise not clipped, as in the published comparisons) of

- `input`: the noisy photograph
- `gray`: `photo-denoise-gray`, on each channel by itself
- `color`: `photo-denoise-color`
- `bm3d`: CBM3D of the package bm3d, which is given the standard deviation; it takes seconds per photograph

and of the clean photograph after the color model (`clean`).
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

#: The model halves height and width up to three times.
MULTIPLE = 8
EXTENSIONS = {".jpg", ".jpeg", ".png"}


def restored(session, image):
    """Runs a model on an image of [height, width, channels] in 0..1, mirrored at its lower and right edge."""
    height, width = image.shape[:2]
    padding = ((0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0))
    padded = np.pad(image, padding, mode="reflect").transpose(2, 0, 1)[None].astype(np.float32)
    (output,) = session.run(None, {session.get_inputs()[0].name: padded})
    return output[0].transpose(1, 2, 0)[:height, :width]


def psnr(image, reference):
    return -10 * np.log10(np.mean((np.clip(image, 0, 1) - reference) ** 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--sigma", type=float, nargs="+", default=[15, 25, 50])
    parser.add_argument("--bm3d", action="store_true")
    options = parser.parse_args()
    names = {"color": "photo-denoise-color", "gray": "photo-denoise-gray"}
    sessions = {key: onnxruntime.InferenceSession(options.models / name / "model.onnx") for key, name in names.items()}
    paths = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in EXTENSIONS)
    photos = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) / 255 for path in paths]

    def of_channels(image):
        return np.concatenate([restored(sessions["gray"], image[..., [channel]]) for channel in range(3)], axis=2)

    methods = {
        "input": lambda noisy, sigma: noisy,
        "gray": lambda noisy, sigma: of_channels(noisy),
        "color": lambda noisy, sigma: restored(sessions["color"], noisy),
    }
    if options.bm3d:
        import bm3d

        methods["bm3d"] = lambda noisy, sigma: bm3d.bm3d_rgb(noisy, sigma / 255)
    print(f"{len(photos)} photographs", *(f"{name:>8}" for name in methods))
    for sigma in options.sigma:
        sums = dict.fromkeys(methods, 0.0)
        for number, photo in enumerate(photos):
            noise = np.random.default_rng([number, int(sigma)]).normal(0, sigma / 255, photo.shape)
            for name, method in methods.items():
                sums[name] += psnr(method(photo + noise, sigma), photo)
        print(f"sigma {sigma:7.1f}   ", *(f"{total / len(photos):8.2f}" for total in sums.values()))
    clean = np.mean([psnr(restored(sessions["color"], photo), photo) for photo in photos])
    print(f"clean {clean:8.2f}")


if __name__ == "__main__":
    main()
