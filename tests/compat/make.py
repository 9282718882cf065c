"""Generates the folders of one version: inputs, pipelines, and unfinished outputs of a program.

Usage: make.py PROGRAM FOLDER [PART...]. Needs `pip install numpy pyarrow`. PROGRAM is a debug build, since only debug builds have
the crash points of `LATENTFLOW_CRASH_AT`. FOLDER must not exist, since existing folders are never regenerated (see README.md).
"""

import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

# The modification time of every input file, in nanoseconds since 1970. Git does not store it, so the test sets it again.
TIME = 1_700_000_000_123_456_700

PROGRAM = Path(sys.argv[1]).resolve()
ROOT = Path(sys.argv[2]).resolve()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def set_times(folder):
    """Sets the modification time of all input below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(TIME, TIME))


def run(site, *arguments, code=0, **variables):
    """Runs the program in a folder and asserts its exit code (None: a signal ended it)."""
    set_times(site / "in")
    set_times(site / "later")
    done = subprocess.run([PROGRAM, *arguments], cwd=site, env=os.environ | variables, capture_output=True, text=True)
    found = None if done.returncode < 0 else done.returncode
    assert found == code, f"{site.name}: {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def create_site(name, pipeline):
    site = ROOT / name
    write(site / "p.toml", pipeline.strip() + "\n")
    return site


def png(number):
    """An image of 4 x 4 pixels."""
    rows = b"".join(b"\0" + bytes((number * 31 + y * 12 + x) % 256 for x in range(12)) for y in range(4))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pgm(number):
    return b"P5 4 4 255\n" + bytes((number * 17 + place * 5) % 256 for place in range(16))


def image(number):
    return b"no image" if number % 5 == 3 else png(number) if number % 2 else pgm(number)


def image_name(number):
    return f"{number:03}.{'png' if number % 2 else 'pgm'}"


def photos(folder, numbers):
    for number in numbers:
        write(folder / ["cat", "dog"][number % 2] / image_name(number), image(number))


def values(numbers):
    """Returns rows of a number, two values and a word; every seventh lacks a value."""
    return [(n, None if n % 7 == 5 else n * 0.25, (n * 37 % 100) / 100, "xyz"[n % 3]) for n in numbers]


def csv(numbers):
    line = lambda n, a, b, word: f"{n},{'' if a is None else a},{b},{word}\n"
    return "id,a,b,word\n" + "".join(line(*row) for row in values(numbers))


def ndjson(numbers):
    line = lambda n, a, b, word: json.dumps({"id": n, "a": a, "b": b, "word": word}) + "\n"
    return "".join(line(*row) for row in values(numbers)).replace('"id": 4,', '"id": oops,')


def table(numbers):
    ids, a, b, word = zip(*values(numbers))
    return pa.table({"id": pa.array(ids, pa.int64()), "a": pa.array(a, pa.float32()), "b": b, "word": word})


def parquet(rows, group=4):
    out = io.BytesIO()
    pa.parquet.write_table(rows, out, row_group_size=group)
    return out.getvalue()


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def tar(numbers):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as shard:
        for number in numbers:
            info = tarfile.TarInfo(image_name(number))
            info.size = len(image(number))
            shard.addfile(info, io.BytesIO(image(number)))
    return out.getvalue()


def array(save, **arrays):
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


SINK = """
[stages.out]
kind = "parquet"
inputs = ["{}"]
path = "out"
file.records = 4
"""

FEATURES = """
[stages.vectors]
kind = "features"
inputs = ["in"]
columns = ["a", "b"]
keep = true
"""

PIXELS = """
[stages.pixels]
kind = "pixels"
inputs = ["in"]
size = [4, 4]
"""


def source(kind, more="", records=3):
    return f'[stages.in]\nkind = "{kind}"\npath = "in"\nbatch = {{ records = {records} }}\n{more}'


def partial_output(name, pipeline, first, later, suffix, limit=7):
    """Creates a site with one input file whose first rows are written; another file arrives later."""
    site = create_site(name, pipeline)
    write(site / "in" / f"b{suffix}", first)
    write(site / "later" / f"a{suffix}", later)
    run(site, "run", "p.toml", "--workers", "2", "--limit", str(limit))
    return site


def sources():
    numbers, more = range(0, 20), range(100, 105)
    partial_output("csv", source("csv") + FEATURES + SINK.format("vectors"), csv(numbers), csv(more), ".csv")
    printed = SINK.format("in") + 'columns = ["source", "row", "b", "id"]\n'
    partial_output("ndjson", source("ndjson") + printed, ndjson(numbers), ndjson(more), ".ndjson")
    chosen = '[stages.high]\nkind = "filter"\ninputs = ["in"]\ncolumn = "b"\nat_least = 0.25\n[stages.named]\nkind = "select"\n'
    chosen += 'inputs = ["high"]\ndrop = ["a"]\nrename = { word = "name" }\n'
    partial_output("parquet", source("parquet") + chosen + SINK.format("named"), parquet(table(numbers)), parquet(table(more)), ".parquet")
    images = lambda numbers: pa.table({"image": [{"bytes": image(n), "path": image_name(n)} for n in numbers], "label": list(numbers)})
    partial_output("encoded", source("parquet") + PIXELS + SINK.format("pixels"), parquet(images(numbers)), parquet(images(more)), ".parquet")
    bytes_of = lambda count: np.arange(count * 16, dtype=np.uint8).reshape(count, 4, 4)
    gray = PIXELS + 'channels = "gray"\n'
    partial_output("idx", source("idx") + gray + SINK.format("pixels"), idx(bytes_of(20)), idx(bytes_of(5)), ".idx")
    floats = lambda count: np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    vectors = '[stages.vectors]\nkind = "features"\ninputs = ["in"]\ncolumns = ["{}"]\n'
    arrays = lambda count: array(np.savez, X=floats(count), y=np.arange(count))
    partial_output("npz", source("npz") + vectors.format("X") + SINK.format("vectors"), arrays(20), arrays(5), ".npz")
    saved = lambda count: array(np.save, arr=floats(count))
    partial_output("npy", source("npz") + vectors.format("array") + SINK.format("vectors"), saved(20), saved(5), ".npy")
    def ipc(make, rows):
        out = io.BytesIO()
        with make(out, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=4)
        return out.getvalue()
    file, stream = ipc(pa.ipc.new_file, table(numbers)), ipc(pa.ipc.new_stream, table(more))
    partial_output("arrow", source("arrow") + FEATURES + SINK.format("vectors"), file, stream, ".arrow")
    partial_output("tar", source("tar") + PIXELS + SINK.format("pixels"), tar(numbers), tar(more), ".tar")


def images():
    pictures = '[stages.pictures]\nkind = "images"\ninputs = ["pixels"]\npath = "out/pictures"\n'
    pipeline = source("images", "folder_labels = true\n") + PIXELS + SINK.format("pixels").replace('"out"', '"out/table"') + pictures
    site = create_site("images", pipeline)
    photos(site / "in", range(0, 12))
    run(site, "run", "p.toml", "--limit", "7")
    photos(site / "in", range(12, 18))
    run(site, "run", "p.toml", "--limit", "9")
    photos(site / "later", range(18, 22))


def folded():
    pipeline = source("csv", records=1) + FEATURES + SINK.format("vectors").replace("records = 4", "records = 1")
    site = create_site("folded", pipeline)
    write(site / "in/a.csv", csv(range(0, 310)))
    write(site / "in/b.csv", csv(range(1000, 1010)))
    run(site, "run", "p.toml", "--limit", "310")
    run(site, "compact", "out")
    run(site, "run", "p.toml", "--limit", "4")
    write(site / "later/c.csv", csv(range(2000, 2005)))


def changed():
    some = '[stages.some]\nkind = "filter"\ninputs = ["in"]\ncolumn = "b"\nat_least = {}\n'
    pipeline = lambda least: source("csv") + some.format(least) + SINK.format("some")
    site = create_site("changed", pipeline("0.5"))
    write(site / "first.toml", pipeline("0.25"))
    write(site / "in/b.csv", csv(range(0, 30)))
    run(site, "run", "first.toml", "--set", "name=p", "--limit", "9")
    run(site, "run", "p.toml", "--limit", "9", "--allow-change")
    write(site / "later/a.csv", csv(range(100, 105)))


def replay():
    path = 'path = "in/rejects"\n'
    first = '[stages.in]\nkind = "csv"\npath = "in/rows.csv"\n' + FEATURES + SINK.format("vectors").replace('"out"', '"first"')
    again = f'[stages.in]\nkind = "rejects"\n{path}batch = {{ records = 2 }}\n' + FEATURES.replace('"a", ', "") + SINK.format("vectors")
    site = create_site("replay", again)
    write(site / "first.toml", first + f"[rejects]\n{path}")
    write(site / "in/rows.csv", csv(range(0, 60)))
    run(site, "run", "first.toml")
    shutil.rmtree(site / "first")
    shutil.rmtree(site / "in/rejects/_latentflow")
    run(site, "run", "p.toml", "--limit", "3")


def crashed():
    """Creates a site after two crashes, each with batches in flight and a partial file."""
    site = create_site("crashed", source("csv") + FEATURES + SINK.format("vectors"))
    write(site / "in/b.csv", csv(range(0, 20)))
    for _ in range(2):
        run(site, "run", "p.toml", "--workers", "1", code=None, LATENTFLOW_CRASH_AT="written:1")
    write(site / "later/a.csv", csv(range(100, 105)))


class Daemon:
    def __init__(self, site):
        command = [PROGRAM, "run", "p.toml", "--metrics", "127.0.0.1:0", "--log-format", "text"]
        self.site, self.log = site, open(site / "log", "w")
        self.process = subprocess.Popen(command, cwd=site, stderr=self.log, stdout=subprocess.DEVNULL)
        admin = self.address("metrics at http://")
        self.wait(lambda: self.status(f"http://{admin}/readyz") == 200)

    def address(self, words):
        found = self.wait(lambda: re.search(re.escape(words) + r"([\d.:]+)", (self.site / "log").read_text()))
        return found[1]

    def status(self, url):
        try:
            return urllib.request.urlopen(url).status
        except (OSError, urllib.error.HTTPError):
            return 0

    def wait(self, poll):
        for _ in range(600):
            found = poll()
            if found:
                return found
            time.sleep(0.05)
        raise TimeoutError((self.site / "log").read_text())

    def post(self, path, kind, body, key=None):
        headers = {"Content-Type": kind} | ({"Idempotency-Key": key} if key else {})
        url = f"http://{self.address('listening on http://')}/v1/{path}"
        return json.load(urllib.request.urlopen(urllib.request.Request(url, body.encode() if isinstance(body, str) else body, headers)))

    def end(self, how):
        self.process.send_signal(how)
        code = self.process.wait()
        assert code == (0 if how == signal.SIGTERM else -9), (self.site / "log").read_text()
        self.log.close()
        (self.site / "log").unlink()


# The age is not reached, so the sink commits only at the end of a run.
LATE = '\n[commit]\nage = "1h"\n'


def requests():
    rows = '[stages.in]\nkind = "http"\nlisten = "127.0.0.1:0"\nrecords = "features"\ncolumns = { a = "float", b = "float", id = "int" }\n'
    rows += 'batch = { records = 3, delay = "5ms" }\nidempotency_window = "36500days"\n'
    site = create_site("requests", rows + FEATURES + SINK.format("vectors") + LATE)
    body = lambda numbers: "".join(json.dumps({"id": n, "a": n / 4, "b": n / 2}) + "\n" for n in numbers)
    daemon = Daemon(site)
    daemon.post("records", "application/x-ndjson", body(range(0, 6)), "first")
    daemon.post("records", "application/x-ndjson", body([6]) + '{"id": 7, "a": null, "b": 1}\n', "second")
    daemon.end(signal.SIGTERM)
    daemon = Daemon(site)
    daemon.post("records", "application/x-ndjson", body(range(8, 13)), "third")
    daemon.end(signal.SIGKILL)
    sent = '[stages.in]\nkind = "http"\nlisten = "127.0.0.1:0"\nrecords = "images"\nbatch = { records = 3, delay = "5ms" }\n'
    site = create_site("sent", sent + PIXELS + SINK.format("pixels") + LATE)
    daemon = Daemon(site)
    for number in range(0, 4):
        daemon.post(f"records?source=camera/{image_name(number)}", "application/octet-stream", image(number))
    daemon.end(signal.SIGTERM)
    daemon = Daemon(site)
    for number in range(4, 7):
        daemon.post(f"records?source=camera/{image_name(number)}", "application/octet-stream", image(number))
    daemon.end(signal.SIGKILL)


def watched():
    more = 'watch = true\nrescan = "1s"\n'
    pipeline = source("images", more).replace("records = 3", 'records = 3, delay = "10ms"') + PIXELS + SINK.format("pixels") + LATE
    site = create_site("watched", pipeline)
    (site / "in").mkdir()
    photos(site / "in", range(0, 4))
    set_times(site / "in")
    journal = site / "out/_latentflow/watched/in"
    lines = lambda: sum(path.read_text().count("\n") for path in journal.glob("*.ndjson"))
    names = 4
    for how in [signal.SIGTERM, signal.SIGKILL]:
        daemon = Daemon(site)
        for number in range(names, names + 4):
            made = site / "made" / image_name(number)
            write(made, image(number))
            os.utime(made, ns=(TIME, TIME))
            made.rename(site / "in" / ["cat", "dog"][number % 2] / image_name(number))
        names += 4
        daemon.wait(lambda: lines() == names - 4)
        daemon.end(how)
    (site / "made").rmdir()
    photos(site / "later", range(names, names + 3))


TRAINING = """
name = "{}"
kind = {}
{}
[training]
epochs = {}
batch_size = 8
[input]
type = "{}"
{}
[data]
validation = 0.2
test = 0.2
[[data.sources]]
"""


def rows(numbers):
    line = lambda n: ",".join(f"{np.sin(n * (k + 1) / 9):.4f}" for k in range(5)) + f",{n % 2}\n"
    return "a,b,c,d,e,kind\n" + "".join(map(line, numbers))


def train(site, name, text, how, epochs):
    """Trains until some epochs are complete and sends the signal `how`; trains to the end if `how` is None."""
    write(site / f"{name}.toml", text)
    set_times(site / "in")
    command = [PROGRAM, "train", f"{name}.toml", "--threads", "1", "--log-format", "text"]
    process = subprocess.Popen(command, cwd=site, stderr=subprocess.PIPE, text=True)
    seen = []
    for line in process.stderr:
        seen.append(line)
        if how and re.search(rf"epoch(=| +){epochs}\b", line):
            process.send_signal(how)
    code = process.wait()
    assert code == {None: 0, signal.SIGTERM: 4, signal.SIGKILL: -9}[how], "".join(seen)


def trained():
    site = ROOT / "trained"
    write(site / "in/rows.csv", rows(range(0, 120)))
    source = 'kind = "csv"\npath = "in/rows.csv"\n'
    words = lambda name, epochs: TRAINING.format(name, '"deep"', "code_size = 2\n[network]\nnodes = [4]", epochs, "features", 'scaling = "standard"\ncolumns = ["a", "b", "c", "d", "e"]')
    train(site, "stopped", words("stopped", 300) + source, signal.SIGTERM, 5)
    shapes = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8)
    write(site / "in/images.idx", idx(shapes))
    write(site / "in/labels.idx", idx(np.arange(60, dtype=np.uint8) % 3))
    source = 'kind = "idx"\npath = "in/images.idx"\nlabels = "in/labels.idx"\n'
    network = "code_size = 2\n[network]\nnodes = [6]\n"
    text = TRAINING.format("killed", '["denoising", "deep"]', network + '[corruption]\nnoise = "gaussian"\nsigma = 25', 40, "image", "size = [8, 8]\nchannels = \"gray\"")
    train(site, "killed", text.replace("batch_size = 8", "batch_size = 8\nzoom = [0.5, 1.0]") + source, signal.SIGKILL, 4)
    assert not (site / "killed/model.toml").exists()


def models():
    """Creates a site with a model in a pipeline, and an evaluation of the model on prepared data."""
    site = create_site("model", source("csv") + """
[models.m]
path = "models/m"
[stages.vectors]
kind = "features"
inputs = ["in"]
model = "m"
[stages.codes]
kind = "encode"
inputs = ["vectors"]
model = "m"
reconstruct = true
""" + SINK.format("codes"))
    write(site / "in/b.csv", rows(range(0, 20)))
    write(site / "later/a.csv", rows(range(100, 105)))
    data = site / "in/training/rows.csv_"
    write(data, rows(range(0, 60)))
    text = TRAINING.format("m", '"deep"', "code_size = 2\n[network]\nnodes = [4]", 3, "features", 'scaling = "standard"')
    train(site, "models/m", text + 'kind = "csv"\npath = "in/training/rows.csv_"\n[data.normal]\ncolumn = "kind"\nequals = 0\n', None, 0)
    run(site, "run", "p.toml", "--limit", "7")
    run(site, "evaluate", "models/m", "--prepared", "prepared", "--json", "evaluation.json")


if __name__ == "__main__":
    assert not ROOT.exists(), "existing folders are never regenerated"
    parts = [sources, images, folded, changed, replay, crashed, requests, watched, trained, models]
    for make in parts:
        if make.__name__ in sys.argv[3:] or not sys.argv[3:]:
            make()
            print(make.__name__)
