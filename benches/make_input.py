"""Generates inputs of compare.py, deterministically for the same arguments.

usage: make_input.py images FOLDER COUNT WIDTH HEIGHT rgb|gray     color JPEGs, or gray PNGs
       make_input.py copies FOLDER COUNT PHOTOGRAPHS               repeated if there are too few
       make_input.py records FILE COUNT COLUMNS                    128 float32 each: in a list, or in COLUMNS columns
"""
import pathlib
import shutil
import sys


def images(folder, count, width, height, mode):
    import numpy
    from PIL import Image

    folder, (count, width, height) = pathlib.Path(folder), map(int, (count, width, height))
    folder.mkdir()
    rng = numpy.random.default_rng(1)
    channels = 1 if mode == "gray" else 3
    # Smooth shapes with some grain: encoded images of the size of photographs.
    for number in range(count):
        coarse = rng.integers(0, 256, (max(height // 16, 4), max(width // 16, 4), channels), numpy.uint8)
        image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.standard_normal((height, width, channels), numpy.float32).squeeze() * 6
        pixels = numpy.clip(numpy.asarray(image) + grain, 0, 255).astype(numpy.uint8)
        Image.fromarray(pixels).save(folder / (f"{number:06}.png" if mode == "gray" else f"{number:06}.jpg"), quality=90)


def copies(folder, count, photographs):
    folder = pathlib.Path(folder)
    files = sorted(pathlib.Path(photographs).rglob("*.jpg"))
    folder.mkdir()
    for number in range(int(count)):
        shutil.copyfile(files[number % len(files)], folder / f"{number:06}.jpg")


def records(file, count, columns):
    import numpy
    import pyarrow
    import pyarrow.parquet

    rng = numpy.random.default_rng(2)
    mix = rng.normal(size=(16, 128)).astype(numpy.float32)
    if columns == "1":
        schema = pyarrow.schema([("x", pyarrow.list_(pyarrow.float32(), 128))])
    else:
        schema = pyarrow.schema([(f"x{place:03}", pyarrow.float32()) for place in range(128)])
    left = int(count)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
        while left > 0:
            rows = min(left, 131072)
            values = rng.standard_normal((rows, 16), numpy.float32) @ mix + rng.standard_normal((rows, 128), numpy.float32) / 10
            if columns == "1":
                arrays = [pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), 128)]
            else:
                arrays = [pyarrow.array(numpy.ascontiguousarray(column)) for column in values.T]
            writer.write_table(pyarrow.table(arrays, schema=schema))
            left -= rows


if __name__ == "__main__":
    {"images": images, "copies": copies, "records": records}[sys.argv[1]](*sys.argv[2:])
