#!/usr/bin/env python3
"""Whole runs beside their floor and beside what people use today: one table. `make bench` calls it.

The floor is the bare parts of a run in a plain loop (benches/floor.rs); the peers are Python programs (benches/peers):
what one would write first, what an expert would write, and Ray Data (with --ray). Each does the same work: the same
model, the same pixels, the same columns to Parquet. Rounds take turns, figures are medians. CPU seconds are those of all
processes; peak memory is their proportional share (PSS), looked at ten times a second.

Inputs are made once and kept in .bench, as are the peers' packages, in the versions of benches/peers/requirements.txt.

usage: compare.py [--works photos ...] [--rounds 3] [--scale 1.0] [--photos FOLDER] [--ray] [--peers floor naive expert]
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent
BENCH = REPOSITORY / ".bench"
PYTHON = BENCH / "peers/bin/python"

# Name: what it is, records at scale 1, how its input is made, how the pipeline and the others are called.
WORKS = {
    "photos": ("481x321 JPEG to 64x64, convolutional encoder", 4000, "rgb", 64, (481, 321), "photo-ae"),
    "large": ("1920x1280 JPEG to 64x64, convolutional encoder", 400, "rgb", 64, (1920, 1280), "photo-ae"),
    "small": ("28x28 PNG, convolutional encoder", 60000, "gray", 28, (28, 28), "fashion-conv"),
    "records": ("128 float32 of Parquet, dense autoencoder with its error", 5_000_000, None, None, None, None),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--peers", nargs="+", choices=["floor", "naive", "expert"], default=["floor", "naive", "expert"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="a share of the records, for a quick look")
    parser.add_argument("--photos", type=pathlib.Path, help="JPEGs to use for `photos` instead of made ones")
    parser.add_argument("--ray", action="store_true", help="Ray Data as well; its packages take some 400 MB")
    return parser.parse_args()


def call(*command, **options):
    subprocess.run([str(word) for word in command], check=True, **options)


def install(ray):
    files = [HERE / "peers/requirements.txt"] + ([HERE / "peers/requirements-ray.txt"] if ray else [])
    wanted = "".join(file.read_text() for file in files)
    stamp = BENCH / "peers/installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    call(sys.executable, "-m", "venv", BENCH / "peers")
    call(PYTHON, "-m", "pip", "install", "-q", *(word for file in files for word in ("-r", file)))
    stamp.write_text(wanted)


def build():
    """The program, and the floor's path."""
    call("cargo", "build", "--release", "--locked", cwd=REPOSITORY)
    told = subprocess.run(
        ["cargo", "bench", "--locked", "--no-run", "--bench", "floor", "--message-format", "json"],
        cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout
    messages = [json.loads(line) for line in told.splitlines()]
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == "floor" and m.get("executable"))


MAKE_IMAGES = """
import pathlib, sys, numpy
from PIL import Image
folder, count, width, height, mode = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5]
folder.mkdir(parents=True)
rng = numpy.random.default_rng(1)
channels = 1 if mode == "gray" else 3
# Smooth shapes with some grain: as large as photographs once they are encoded.
for number in range(count):
    coarse = rng.integers(0, 256, (max(height // 16, 4), max(width // 16, 4), channels), numpy.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (height, width, channels)).squeeze()
    pixels = numpy.clip(numpy.asarray(image) + grain, 0, 255).astype(numpy.uint8)
    Image.fromarray(pixels).save(folder / (f"{number:06}.png" if mode == "gray" else f"{number:06}.jpg"), quality=90)
"""

MAKE_RECORDS = """
import sys, numpy, pyarrow, pyarrow.parquet
path, count = sys.argv[1], int(sys.argv[2])
rng = numpy.random.default_rng(2)
mix = rng.normal(size=(16, 128)).astype(numpy.float32)
schema = pyarrow.schema([("x", pyarrow.list_(pyarrow.float32(), 128))])
with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
    while count > 0:
        rows = min(count, 131072)
        values = rng.normal(size=(rows, 16)).astype(numpy.float32) @ mix + rng.normal(0, .1, (rows, 128)).astype(numpy.float32)
        writer.write_table(pyarrow.table([pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), 128)], schema=schema))
        count -= rows
"""

TRAIN = """
name = "bench-records"
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
[data]
validation = 0.05
[[data.sources]]
kind = "parquet"
path = "{path}"
"""


def photographs(folder, count, given):
    """As many of the given photographs, some of them several times where there are too few."""
    files = sorted(path for path in given.rglob("*.jpg"))
    folder.mkdir(parents=True)
    for number in range(count):
        shutil.copyfile(files[number % len(files)], folder / f"{number:06}.jpg")


def prepare(work, scale, photos, binary):
    """Makes the input of a work, and its model; returns both, and how many records there are."""
    _, count, mode, _, size, model = WORKS[work]
    count = max(1, int(count * scale))
    if mode is None:
        file, folder = BENCH / f"data/records-{count}.parquet", BENCH / "records-model"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            call(PYTHON, "-c", MAKE_RECORDS, part, count)
            part.rename(file)
        if not (folder / "model.toml").exists():
            sample = BENCH / "data/sample.parquet"
            call(PYTHON, "-c", MAKE_RECORDS, sample, 65536)
            (BENCH / "records.toml").write_text(TRAIN.format(path=sample))
            call(binary, "train", BENCH / "records.toml", "--restart", "--out", folder, stderr=subprocess.DEVNULL)
        return file, folder, count
    kind = "given" if photos and work == "photos" else "made"
    folder = BENCH / f"data/{work}-{kind}-{count}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        if kind == "given":
            photographs(part, count, photos)
        else:
            call(PYTHON, "-c", MAKE_IMAGES, part, count, *size, mode)
        part.rename(folder)
    return folder, REPOSITORY / "models" / model, count


def pipeline(work, source, model, out):
    mode, side = WORKS[work][2:4]
    if mode is None:
        stages = f"""
[stages.in]
kind = "parquet"
path = "{source}"
[stages.vectors]
kind = "features"
inputs = ["in"]
model = "m"
columns = ["x"]
[stages.codes]
kind = "encode"
inputs = ["vectors"]
model = "m"
reconstruct = true
"""
        columns = '["row", "latent", "reconstruction_error"]'
    else:
        stages = f"""
[stages.in]
kind = "images"
path = "{source}"
[stages.pixels]
kind = "pixels"
inputs = ["in"]
model = "m"
[stages.codes]
kind = "encode"
inputs = ["pixels"]
model = "m"
"""
        columns = '["source", "row", "latent"]'
    return f"""
[models.m]
path = "{model}"
{stages}
[stages.out]
kind = "parquet"
inputs = ["codes"]
path = "{out}"
columns = {columns}
"""


class Memory(threading.Thread):
    """The greatest proportional memory of a process and its children."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.ends = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.ends.wait(0.1):
            self.peak = max(self.peak, sum(self.of(pid) for pid in self.family(self.pid)))

    def family(self, pid):
        found = [pid]
        for task in pathlib.Path("/proc", str(pid), "task").glob("*/children"):
            try:
                found += [member for child in task.read_text().split() for member in self.family(int(child))]
            except OSError:
                continue
        return found

    @staticmethod
    def of(pid):
        try:
            text = pathlib.Path("/proc", str(pid), "smaps_rollup").read_text()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def measure(command, environment):
    """Seconds, CPU seconds, peak bytes."""
    began = time.perf_counter()
    child = subprocess.Popen([str(word) for word in command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    memory = Memory(child.pid)
    told = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    took = time.perf_counter() - began
    memory.ends.set()
    if status != 0:
        raise SystemExit(f"{command[0]} {command[1]} failed: {told[-2000:]}")
    return took, usage.ru_utime + usage.ru_stime, memory.peak


COMPARE = """
import glob, sys, numpy, pyarrow.parquet as parquet
def latents(place, key):
    files = sorted(glob.glob(place + "/*.parquet")) or [place]
    found = {}
    for file in files:
        table = parquet.read_table(file, columns=[key, "latent"])
        for name, latent in zip(table[key].to_pylist(), table["latent"].to_pylist()):
            found[name] = latent
            if len(found) >= 2000: return found
    return found
key = sys.argv[3]
ours, theirs = latents(sys.argv[1], key), latents(sys.argv[2], key)
both = [name for name in ours if name in theirs]
off = max(float(numpy.abs(numpy.subtract(ours[name], theirs[name])).max()) for name in both)
size = float(numpy.std([ours[name] for name in both]))
print(f"{off / size:.2g}")
"""


def difference(ours, theirs, key):
    """The largest difference of latents, in their standard deviations, over those that both have among the first."""
    done = subprocess.run([PYTHON, "-c", COMPARE, ours, theirs, key], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.stdout.strip() or "?"


def main():
    options = arguments()
    os.chdir(REPOSITORY)
    floor, binary = build(), REPOSITORY / "target/release/latentflow"
    install(options.ray)
    library = next((REPOSITORY / ".runtime/onnxruntime").glob("libonnxruntime.*"))
    environment = {**os.environ, "ORT_DYLIB_PATH": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
    version = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    print(f"{version}; {platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}")
    peers = options.peers + (["ray"] if options.ray else [])
    for work in options.works:
        source, model, count = prepare(work, options.scale, options.photos, binary)
        _, _, mode, side, _, _ = WORKS[work]
        out = BENCH / "out"
        words = ["records", source, model] if mode is None else ["images", source, model]
        rest = [] if mode is None else [side, mode]
        commands = {"latentflow": [binary, "run", BENCH / "p.toml", "--summary", "none", "--log-format", "text"]}
        for peer in peers:
            program = {"floor": [floor], "naive": [PYTHON, HERE / "peers/naive.py"], "expert": [PYTHON, HERE / "peers/expert.py"], "ray": [PYTHON, HERE / "peers/ray_data.py"]}[peer]
            commands[peer] = [*program, *words, out / peer, *rest]
        (BENCH / "p.toml").write_text(pipeline(work, source, model, out / "latentflow"))
        results = {name: [] for name in commands}
        for _ in range(options.rounds):
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            for name, command in commands.items():
                results[name].append(measure(command, environment))
        print(f"\n{work}: {count} x {WORKS[work][0]}")
        print(f"{'':<12}{'records/s':>11}{'CPU s':>9}{'peak MiB':>10}{'speed':>8}{'CPU':>7}{'latents off by':>16}")
        median = lambda name, place: statistics.median(result[place] for result in results[name])
        for name in commands:
            seconds, cpu, peak = (median(name, place) for place in range(3))
            speed, share = seconds / median("latentflow", 0), median("latentflow", 1) / cpu
            off = "" if name == "latentflow" else difference(out / "latentflow", out / name, "row" if mode is None else "source")
            print(f"{name:<12}{count / seconds:>11.0f}{cpu:>9.1f}{peak / 2**20:>10.0f}{speed:>8.2f}{share:>7.2f}{off:>16}", flush=True)
    print("\nspeed: how many times as fast latentflow was; CPU: its CPU seconds over theirs; latents: largest difference, in deviations")


main()
