"""Generates inputs of compare.py, deterministically for the same arguments.

usage: make_input.py images FOLDER COUNT WIDTH HEIGHT rgb|gray     color JPEGs, or gray PNGs
       make_input.py progressive FOLDER COUNT WIDTH HEIGHT rgb     the same JPEGs, encoded as progressive ones
       make_input.py camera FOLDER COUNT WIDTH HEIGHT rgb          JPEGs with shapes of all sizes, as a camera writes them
       make_input.py copies FOLDER COUNT PHOTOGRAPHS               repeated if there are too few
       make_input.py recoded FOLDER COUNT PHOTOGRAPHS              the same, as progressive JPEGs with unchanged quantization
       make_input.py records FILE COUNT COLUMNS                    128 float32 each: in a list, or in COLUMNS columns
       make_input.py resnet FILE                                   the encoder of ResNet-18, with random weights
"""
import pathlib
import shutil
import sys


def images(folder, count, width, height, mode, progressive=False):
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
        options = {} if mode == "gray" else {"quality": 90, "progressive": progressive}
        Image.fromarray(pixels).save(folder / (f"{number:06}.png" if mode == "gray" else f"{number:06}.jpg"), **options)


def progressive(*words):
    images(*words, progressive=True)


def camera(folder, count, width, height, _):
    import numpy
    from PIL import Image

    folder, (count, width, height) = pathlib.Path(folder), map(int, (count, width, height))
    folder.mkdir()
    rng = numpy.random.default_rng(3)
    # A photograph of many megapixels is smoother per pixel than a small one: most of its contrast is in large shapes. The grain is that of
    # a sensor. A file has about 6 MB.
    contrasts = {512: 0.5, 128: 0.35, 32: 0.25, 8: 0.15}
    for number in range(count):
        shapes = []
        for size in contrasts:
            coarse = rng.integers(0, 256, (max(height // size, 4), max(width // size, 4), 3), numpy.uint8)
            shapes.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        whole = Image.new("RGB", (width, height))
        # In bands, for which the memory of one is used again for the next.
        for top in range(0, height, 250):
            bottom = min(top + 250, height)
            pixels = rng.standard_normal((bottom - top, width, 3), numpy.float32) * 5 + 128
            for shape, contrast in zip(shapes, contrasts.values()):
                pixels += (numpy.asarray(shape.crop((0, top, width, bottom))) - numpy.float32(127.5)) * numpy.float32(contrast)
            whole.paste(Image.fromarray(numpy.clip(pixels, 0, 255).astype(numpy.uint8)), (0, top))
        whole.save(folder / f"{number:06}.jpg", quality=90, subsampling="4:2:0")


def copies(folder, count, photographs):
    folder = pathlib.Path(folder)
    files = sorted(pathlib.Path(photographs).rglob("*.jpg"))
    folder.mkdir()
    for number in range(int(count)):
        shutil.copyfile(files[number % len(files)], folder / f"{number:06}.jpg")


def recoded(folder, count, photographs):
    from PIL import Image

    folder = pathlib.Path(folder)
    files = sorted(pathlib.Path(photographs).rglob("*.jpg"))
    folder.mkdir()
    for number in range(int(count)):
        place = folder / f"{number:06}.jpg"
        if number < len(files):
            with Image.open(files[number]) as image:
                image.save(place, progressive=True, quality="keep")
        else:
            shutil.copyfile(folder / f"{number % len(files):06}.jpg", place)


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


def resnet(file):
    """Writes ResNet-18 up to its global average pool. Its batch normalization is part of the convolutions, as in exports for inference."""
    import numpy
    import onnx
    from onnx import helper

    rng = numpy.random.default_rng(4)
    nodes, weights = [], []

    def add(operator, *inputs, **attributes):
        name = "latent" if operator == "Flatten" else f"t{len(nodes)}"
        nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def convolution(value, before, after, side, stride):
        scale = (2 / (before * side * side)) ** 0.5
        kernel = (rng.standard_normal((after, before, side, side)) * scale).astype(numpy.float32)
        names = [f"w{len(nodes)}", f"b{len(nodes)}"]
        weights.extend(map(onnx.numpy_helper.from_array, (kernel, numpy.zeros(after, numpy.float32)), names))
        return add("Conv", value, *names, kernel_shape=[side, side], strides=[stride, stride], pads=[side // 2] * 4)

    value = add("Relu", convolution("pixels", 3, 64, 7, 2))
    value = add("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    before = 64
    for after, stride in [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]:
        inner = add("Relu", convolution(value, before, after, 3, stride))
        outer = convolution(inner, after, after, 3, 1)
        shortcut = value if before == after else convolution(value, before, after, 1, stride)
        value, before = add("Relu", add("Add", outer, shortcut)), after
    add("Flatten", add("GlobalAveragePool", value), axis=1)
    tensor = lambda name, shape: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "resnet", [tensor("pixels", ["n", 3, 224, 224])], [tensor("latent", ["n", 512])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, file)


if __name__ == "__main__":
    makers = [images, progressive, camera, copies, recoded, records, resnet]
    {maker.__name__: maker for maker in makers}[sys.argv[1]](*sys.argv[2:])
