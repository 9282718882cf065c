#!/usr/bin/env python3
"""Compares whole runs with their floor and with Python programs, in one table. `make bench` calls it.

The floor is a plain loop over the same library calls, with libjpeg-turbo for JPEG (benches/floor; it needs CMake and NASM). `floors` runs
one such loop per core; the loops share caches and memory, as workers do. The baselines are Python programs (benches/baselines): a simple one, an optimized one, and
Ray Data (with --ray). Each does the same work: the same model, the same pixels, the same columns in Parquet. Programs alternate
in each round, and the figures are medians. CPU seconds are those of all processes. Peak memory is their
proportional share (PSS), sampled ten times per second in a separate round.

Inputs are generated once and stored in .bench, like the packages of the baselines, in the versions of benches/baselines/requirements.txt.
The benchmark `bucket` needs a program that reads object stores: build it with `--features object-store`, and pass --no-build.

usage: compare.py [--workloads photos ...] [--rounds 3] [--scale 1.0] [--photos FOLDER] [--ray] [--baselines floor floors naive expert] [--no-build]
"""
import argparse
import contextlib
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

from workloads import BENCH, HERE, PYTHON, REPOSITORY, WORKLOADS, call, model, pipeline, source, words

BASELINES = ["floor", "floors", "naive", "expert"]
CORES = len(os.sched_getaffinity(0))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--baselines", nargs="+", choices=BASELINES, default=BASELINES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the records, for a quick run")
    parser.add_argument("--photos", type=pathlib.Path, help="JPEGs to use for `photos`, `progressive` and `bucket` instead of generated ones")
    parser.add_argument("--no-build", action="store_true", help="use the programs that are in target/release")
    parser.add_argument("--ray", action="store_true", help="also run Ray Data; its packages take about 400 MB")
    return parser.parse_args()


def install(ray):
    """Installs the packages of the baselines and returns their names."""
    files = [HERE / "baselines/requirements.txt"] + ([HERE / "baselines/requirements-ray.txt"] if ray else [])
    required = "".join(file.read_text() for file in files)
    packages = [line for line in required.splitlines() if "==" in line]
    stamp = BENCH / "baselines/installed"
    if stamp.exists() and stamp.read_text() == required:
        return packages
    call(sys.executable, "-m", "venv", BENCH / "baselines")
    call(PYTHON, "-m", "pip", "install", "-q", *(word for file in files for word in ("-r", file)))
    stamp.write_text(required)
    return packages


def build(is_built):
    """Builds the program, as `make build` does, and the floor, unless they are built; returns their paths. The floor is None if it is not
    built, or without the tools of libjpeg-turbo."""
    binary, floor = REPOSITORY / "target/release/latentflow", REPOSITORY / "target/release/floor"
    if is_built:
        if not floor.exists():
            print(f"the floor is left out: {floor} does not exist", file=sys.stderr)
        return binary, floor if floor.exists() else None
    call("cargo", "build", "--release", "--locked", cwd=REPOSITORY)
    if not (shutil.which("cmake") and shutil.which("nasm")):
        print("the floor is left out: its libjpeg-turbo needs CMake and NASM", file=sys.stderr)
        return binary, None
    call("cargo", "build", "--release", "--locked", "-p", "latentflow-floor", cwd=REPOSITORY)
    return binary, floor


class Memory(threading.Thread):
    """The peak proportional memory of processes and their children."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.peak, self.ends = pids, 0, threading.Event()
        self.start()

    def run(self):
        while not self.ends.wait(0.1):
            self.peak = max(self.peak, sum(self.of(member) for pid in self.pids for member in self.family(pid)))

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


def measure(commands, environment, watched):
    """Seconds and CPU seconds of concurrent commands; their peak bytes if they are `watched`, which slows them down."""
    began = time.perf_counter()
    start = lambda words: subprocess.Popen([str(word) for word in words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    children = [start(words) for words in commands]
    memory, cpu = Memory([child.pid for child in children]) if watched else None, 0
    for child in children:
        output = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        cpu += usage.ru_utime + usage.ru_stime
        if status != 0:
            raise SystemExit(f"{child.args[0]} {child.args[1]} failed: {output[-2000:]}")
    took = time.perf_counter() - began
    if not watched:
        return took, cpu
    memory.ends.set()
    return memory.peak


COMPARE = """
import pathlib, sys, numpy
ours, theirs, what = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
def latents(place):
    import pyarrow.parquet
    key, found = {"records": "row", "images": "source"}[what], {}
    for file in sorted(place.glob("*.parquet")) if place.is_dir() else [place]:
        table = pyarrow.parquet.read_table(file, columns=[key, "latent"]).slice(0, 2000)
        found |= {name: numpy.array(latent) for name, latent in zip(table[key].to_pylist(), table["latent"].to_pylist())}
    return found
def pictures(place):
    from PIL import Image
    return {file.name: numpy.asarray(Image.open(file)).astype(float) for file in sorted(place.glob("*.png"))[:20]}
ours, theirs = map(pictures if what == "denoise" else latents, (ours, theirs))
both = sorted(set(ours) & set(theirs))
off = max(float(numpy.abs(ours[name] - theirs[name]).max()) for name in both)
size = float(numpy.std([ours[name] for name in both]))
print(f"{off / size:.2g}")
"""


def difference(ours, theirs, kind):
    """The largest difference of latents (or pixels), in standard deviations, over the first records that both outputs have."""
    done = subprocess.run([PYTHON, "-c", COMPARE, ours, theirs, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{theirs} lacks records of {ours}:\n{done.stderr}")
    return done.stdout.strip()


def commands(baselines, floor, binary, out, workload, given):
    """The concurrent commands of each program; `given`: the input and the model."""
    program = {"floor": [floor], "naive": [PYTHON, HERE / "baselines/naive.py"], "expert": [PYTHON, HERE / "baselines/expert.py"], "ray": [PYTHON, HERE / "baselines/ray_data.py"]}
    # Images are written to a folder, latents to a file in it.
    place = lambda share: out / "floors" if workload.kind == "denoise" else out / "floors" / f"{share}.parquet"
    floors = [[floor, "--share", f"{share}/{CORES}", *words(workload, *given, place(share))] for share in range(CORES)]
    ours = [binary, "run", BENCH / "pipeline.toml", "--summary", "none", "--log-format", "text"]
    # Ray Data is a framework for tables; it is not used to write images. Its reader of buckets does not accept this one.
    left_out = ["ray"] if workload.kind == "denoise" or workload.bucket else []
    left_out += [] if workload.has_floor else ["floor", "floors"]
    others = [baseline for baseline in baselines if baseline not in left_out]
    together = lambda baseline: floors if baseline == "floors" else [[*program[baseline], *words(workload, *given, out / baseline)]]
    return {"latentflow": [ours], **{baseline: together(baseline) for baseline in others}}


def rounds(options, calls, out, environment):
    """Seconds, CPU seconds and peak bytes of each program. Programs alternate; the first round measures memory only."""
    times, peaks = {name: [] for name in calls}, {}
    for number in range(options.rounds + 1):
        shutil.rmtree(out, ignore_errors=True)
        (out / "floors").mkdir(parents=True)
        for name, command in calls.items():
            if number == 0:
                peaks[name] = measure(command, environment, True)
            else:
                times[name].append(measure(command, environment, False))
    return {name: [*map(statistics.median, zip(*rows)), peaks[name]] for name, rows in times.items()}


@contextlib.contextmanager
def bucket(folder, environment):
    """Serves a folder as a bucket; gives the URL of its objects, and an environment in which latentflow reads them."""
    words = [PYTHON, HERE / "bucket_server.py", folder]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        access = {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        try:
            yield f"{url}/bench/photos", {**environment, **access, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
        finally:
            server.stdin.close()


def reads_buckets(binary, environment):
    """Whether the program was built with object stores. Other builds refuse the pipeline in .bench for this reason."""
    done = subprocess.run([binary, "check", BENCH / "pipeline.toml"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return "does not support object stores" not in done.stdout


def main():
    options = arguments()
    os.chdir(REPOSITORY)
    binary, floor = build(options.no_build)
    packages = install(options.ray)
    library = next((REPOSITORY / ".runtime/onnxruntime").glob("libonnxruntime.*"))
    environment = {**os.environ, "ORT_DYLIB_PATH": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
    version = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    print(f"{version}; {processor()}, {CORES} cores; Python {platform.python_version()}")
    print(", ".join(packages))
    baselines, out = options.baselines + (["ray"] if options.ray else []), BENCH / "out"
    if floor is None:
        baselines = [baseline for baseline in baselines if baseline not in ("floor", "floors")]
    for name in options.workloads:
        workload = WORKLOADS[name]
        count = max(1, int(workload.count * options.scale))
        place, trained = source(name, workload, count, options.photos), model(workload, binary)
        with bucket(place, environment) if workload.bucket else contextlib.nullcontext((place, environment)) as (served, access):
            read = "s3://bench/photos" if workload.bucket else place
            (BENCH / "pipeline.toml").write_text(pipeline(workload, read, trained, out / "latentflow"))
            if workload.bucket and not reads_buckets(binary, access):
                print(f"\n{name} is left out: run `cargo build --release --locked --features object-store`, then this program with --no-build")
                continue
            calls = commands(baselines, floor, binary, out, workload, (served, trained))
            medians = rounds(options, calls, out, access)
        table(name, workload, count, medians, out)
    print("\nspeed: speedup of latentflow over the program; CPU: ratio of its CPU seconds to theirs; off by: largest difference of results, in standard deviations")


def table(name, workload, count, medians, out):
    print(f"\n{name}: {count} x {workload.what}")
    print(f"{'':<12}{'records/s':>11}{'CPU s':>9}{'peak MiB':>10}{'speed':>8}{'CPU':>7}{'off by':>10}")
    ours = medians["latentflow"]
    for baseline, (seconds, cpu, peak) in medians.items():
        # Ray Data does not report the row of a record.
        is_uncompared = baseline == "latentflow" or (baseline == "ray" and workload.kind == "records")
        off = "" if is_uncompared else difference(out / "latentflow", out / baseline, workload.kind)
        # Ray's workers are not children of the process, so their CPU time is unknown.
        cpu, ratio = ("-", "-") if baseline == "ray" else (f"{cpu:.1f}", f"{ours[1] / cpu:.2f}")
        rate = f"{count / seconds:.0f}" if count > 100 * seconds else f"{count / seconds:.1f}"
        print(f"{baseline:<12}{rate:>11}{cpu:>9}{peak / 2**20:>10.0f}{seconds / ours[0]:>8.2f}{ratio:>7}{off:>10}", flush=True)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
