"""The benchmarks of compare.py, with their inputs, models and pipelines."""
import dataclasses
import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent
BENCH = REPOSITORY / ".bench"
PYTHON = BENCH / "baselines/bin/python"


@dataclasses.dataclass(frozen=True)
class Workload:
    """`kind` is the argument of the programs: `images` to latents, `records` to latents and errors, `denoise` images."""

    what: str
    kind: str
    count: int
    #: Images: width and height of the files, and the side after resizing.
    size: tuple[int, int] = (0, 0)
    side: int = 0
    mode: str = "rgb"
    #: An included model, one that is trained here (names that begin with `bench-`), or an encoder that make_input.py writes (`.onnx`).
    model: str = ""
    #: Images: the function of make_input.py that generates them.
    content: str = "images"
    #: Encoders: the mean and standard deviation per channel, of values from 0 to 1.
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    #: Images: whether the program reads them from a bucket, which bucket_server.py serves.
    bucket: bool = False
    #: Records: one column of lists, or this number of numeric columns.
    columns: int = 1

    @property
    def has_floor(self):
        """The floor reads local files, and opens models by their card."""
        return not (self.bucket or self.mean)


WORKLOADS = {
    "photos": Workload("481x321 JPEG to 64x64, convolutional encoder", "images", 4000, (481, 321), 64, model="photo-ae"),
    "large": Workload("1920x1280 JPEG to 224x224, convolutional encoder", "images", 400, (1920, 1280), 224, model="bench-large"),
    "camera": Workload("6000x4000 JPEG (24 megapixels) to 224x224, convolutional encoder", "images", 40, (6000, 4000), 224, model="bench-large", content="camera"),
    "progressive": Workload("481x321 progressive JPEG to 64x64, convolutional encoder", "images", 2000, (481, 321), 64, model="photo-ae", content="progressive"),
    "resnet": Workload(
        "500x375 JPEG to 224x224, ResNet-18 (1.8 GMACs)", "images", 400, (500, 375), 224, model="resnet.onnx", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "bucket": Workload(
        "481x321 JPEG from a bucket with 20 ms per request, to 64x64, convolutional encoder", "images", 1000, (481, 321), 64, model="photo-ae", bucket=True
    ),
    "small": Workload("28x28 PNG, convolutional encoder", "images", 60_000, (28, 28), 28, "gray", "fashion-conv"),
    "records": Workload("128 float32 in a list, dense autoencoder with its error", "records", 5_000_000, model="bench-list"),
    "columns": Workload("128 columns of float32, dense autoencoder with its error", "records", 5_000_000, model="bench-columns", columns=128),
    "denoise": Workload("481x321 JPEG denoised to PNG, fully convolutional", "denoise", 60, (481, 321), model="photo-denoise-color"),
}

#: Models whose size matters here and whose weights do not: trained for one epoch.
DENSE = """
kind = "deep"
code_size = 32
loss = "mse"
[network]
nodes = [96, 64]
[training]
epochs = 1
batch_size = 512
learning_rate = 0.001
[input]
type = "features"
scaling = "standard"
{columns}
[data]
validation = 0.05
[[data.sources]]
kind = "parquet"
path = "{sample}"
"""
LARGE = """
kind = "convolutional"
code_size = 256
loss = "mse"
[network]
channels = [16, 32, 48, 64, 64]
[training]
epochs = 1
batch_size = 8
learning_rate = 0.001
[input]
type = "image"
size = [224, 224]
channels = "rgb"
[data]
validation = 0.1
[[data.sources]]
kind = "synthetic"
content = "images"
records = 64
size = [224, 224]
"""


def names(columns):
    return ["x"] if columns == 1 else [f"x{place:03}" for place in range(columns)]


def call(*command, **options):
    subprocess.run([str(word) for word in command], check=True, **options)


def make(place, *words):
    """Generates an input once."""
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    call(PYTHON, HERE / "make_input.py", words[0], part, *words[1:])
    part.rename(place)


def model(workload, binary):
    """The folder of the model of a benchmark, or the file of its encoder, which is created first if it is not an included model."""
    if workload.model.endswith(".onnx"):
        file = BENCH / workload.model
        make(file, pathlib.Path(workload.model).stem)
        return file
    if not workload.model.startswith("bench-"):
        return REPOSITORY / "models" / workload.model
    folder = BENCH / workload.model
    if not (folder / "model.toml").exists():
        sample = BENCH / f"data/sample-{workload.columns}.parquet"
        if workload.kind == "records":
            make(sample, "records", 65536, workload.columns)
        columns = "" if workload.columns == 1 else f"columns = {names(workload.columns)}"
        text = LARGE if workload.kind == "images" else DENSE.format(columns=columns, sample=sample)
        spec = BENCH / f"{workload.model}.toml"
        spec.write_text(f'name = "{workload.model}"\n{text}')
        call(binary, "train", spec, "--restart", "--out", folder, stderr=subprocess.DEVNULL)
    return folder


def source(name, workload, count, photos):
    """The path of the input; `photos`: a folder of photographs to use instead of generated ones."""
    if workload.kind == "records":
        file = BENCH / f"data/records-{workload.columns}-{count}.parquet"
        make(file, "records", count, workload.columns)
        return file
    how = {"photos": "copies", "bucket": "copies", "progressive": "recoded"}.get(name)
    if photos and how:
        folder = BENCH / f"data/{'progressive' if how == 'recoded' else 'photos'}-given-{count}"
        make(folder, how, count, photos)
        return folder
    width, height = workload.size
    variant = "" if workload.content == "images" else f"-{workload.content}"
    folder = BENCH / f"data/{width}x{height}-{workload.mode}{variant}-{count}"
    make(folder, workload.content, count, width, height, workload.mode)
    return folder


HEAD = """
[models.m]
{key} = "{model}"
{scaling}[stages.in]
path = "{source}"
"""
RECORDS = """
kind = "parquet"
[stages.vectors]
kind = "features"
inputs = ["in"]
model = "m"
{columns}
[stages.codes]
kind = "encode"
inputs = ["vectors"]
model = "m"
reconstruct = true
[stages.out]
kind = "parquet"
inputs = ["codes"]
path = "{out}"
columns = ["row", "latent", "reconstruction_error"]
"""
#: The stages from a source `in` of images to latents.
ENCODE = """
[stages.pixels]
kind = "pixels"
inputs = ["in"]
model = "m"
[stages.codes]
kind = "encode"
inputs = ["pixels"]
model = "m"
[stages.out]
kind = "parquet"
inputs = ["codes"]
path = "{out}"
columns = ["source", "row", "latent"]
"""
IMAGES = '\nkind = "images"' + ENCODE
DENOISE = """
kind = "images"
# Few images that each take long: small batches distribute them to all workers.
batch = {{ records = 2 }}
[stages.pixels]
kind = "pixels"
inputs = ["in"]
model = "m"
[stages.denoised]
kind = "denoise"
inputs = ["pixels"]
model = "m"
[stages.out]
kind = "images"
inputs = ["denoised"]
path = "{out}"
"""


def pipeline(workload, place, folder, out):
    """The pipeline of a benchmark, as a user would write it. `place`: its input, a path or a prefix in a bucket. `folder`: its model, or the
    file of an encoder."""
    key = "encoder" if pathlib.Path(folder).is_file() else "path"
    side, mean, std = workload.side, list(workload.mean), list(workload.std)
    scaling = f"size = [{side}, {side}]\nmean = {mean}\nstd = {std}\n" if mean else ""
    columns = 'columns = ["x"]' if workload.columns == 1 else ""
    stages = {"records": RECORDS, "images": IMAGES, "denoise": DENOISE}[workload.kind]
    return (HEAD + stages).format(key=key, model=folder, scaling=scaling, source=place, out=out, columns=columns)


def words(workload, place, folder, out):
    """The arguments of the floor and the baselines. `place`: the path of the input, or the URL of a prefix in a bucket."""
    join = lambda values: [",".join(map(str, values))] if values else []
    images = [workload.side, workload.mode, *join(workload.mean), *join(workload.std)]
    rest = {"records": [workload.columns], "images": images, "denoise": []}[workload.kind]
    return [workload.kind, place, folder, out, *rest]
