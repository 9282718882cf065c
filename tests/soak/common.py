"""Common code of the programs in this folder: a daemon, its metrics, requests, and Parquet output.

Needs only Python.
"""
import argparse
import http.client
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


def photos(source, age):
    """A pipeline from a source of images to latents in Parquet; `source` is the body of its table."""
    return f"""
[models.photo]
path = "{REPOSITORY}/models/photo-ae"

[stages.photos]
{source}

[stages.pixels]
kind = "pixels"
inputs = ["photos"]
model = "photo"

[stages.latents]
kind = "encode"
inputs = ["pixels"]
model = "photo"
reconstruct = true

[stages.out]
kind = "parquet"
inputs = ["latents"]
path = "out"
columns = ["source", "row", "latent", "reconstruction_error"]

[commit]
age = "{age}"
"""


def program(doc):
    """A parser of the options that all programs in this folder share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(REPOSITORY / "target/release/latentflow"))
    parser.add_argument("--work", help="a working folder, which is kept; default: a temporary one")
    return parser


def workplace(options):
    folder = pathlib.Path(options.work or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Daemon:
    """A running daemon with the pipeline p.toml of a folder; its log is the file daemon.log there."""

    def __init__(self, folder, binary, metrics="127.0.0.1:0", arguments=()):
        self.folder = pathlib.Path(folder)
        self.log = open(self.folder / "daemon.log", "ab")
        self.log_start = self.log.tell()
        command = [str(binary), "run", "p.toml", "--metrics", metrics, "--log-format", "text", *arguments]
        self.child = subprocess.Popen(command, cwd=folder, stderr=self.log, stdout=subprocess.DEVNULL)
        self.admin = self.wait(lambda: self.address("metrics at http://"))
        self.wait(lambda: self.get("/readyz") is not None or None)

    def wait(self, poll, seconds=120):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = poll()
            if found is not None:
                return found
            if self.child.poll() is not None:
                raise SystemExit(f"the daemon ended: {(self.folder / 'daemon.log').read_text()[-2000:]}")
            time.sleep(0.05)
        raise SystemExit("timed out")

    def address(self, prefix):
        text = (self.folder / "daemon.log").read_bytes()[self.log_start:].decode()
        found = re.search(re.escape(prefix) + r"([0-9.:]+)", text)
        return found and found[1]

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as response:
                return response.read().decode()
        except OSError:
            return None

    def post(self, path):
        host, port = self.admin.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.request("POST", path, body=b"")
        response = connection.getresponse()
        return response.status, response.read().decode()

    def metric(self, name):
        """The sum of a metric over all labels."""
        text = self.get("/metrics") or ""
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)
        return sum(float(value) for value in values)

    def usage(self):
        """Returns the resident memory in bytes, the number of open files and that of threads."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        rss = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024
        threads = int(re.search(r"Threads:\s+(\d+)", status)[1])
        return rss, len(list(pathlib.Path(f"/proc/{self.child.pid}/fd").iterdir())), threads

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(timeout=60)
        if code != 0:
            raise SystemExit(f"exit code {code}: {(self.folder / 'daemon.log').read_text()[-2000:]}")


def column(folder, name):
    """Returns a column of all Parquet files directly in a folder. Needs pyarrow."""
    import pyarrow.parquet as parquet

    files = sorted(pathlib.Path(folder).glob("*.parquet"))
    return [value for file in files for value in parquet.read_table(file, columns=[name])[name].to_pylist()]


def check_once(name, expected, *found):
    """Prints and returns whether the found values are exactly the expected ones, each once."""
    all_found = sorted(value for values in found for value in values)
    ok = all_found == sorted(expected)
    lost = len(set(expected) - set(all_found))
    duplicates = len(all_found) - len(set(all_found))
    print(f"{name}: {len(expected)} expected, {len(all_found)} found, {lost} lost, {duplicates} duplicates: {'ok' if ok else 'WRONG'}")
    return ok


def check_rows_once(spans, folder):
    """Prints and returns whether the column `row` of a folder holds the rows of spans `(first, count)`, each once.

    It is suited for hundreds of millions of rows.
    """
    import numpy
    import pyarrow.parquet as parquet

    files = sorted(pathlib.Path(folder).glob("*.parquet"))
    rows = numpy.concatenate([parquet.read_table(file, columns=["row"])["row"].to_numpy() for file in files])
    rows.sort()
    duplicates = int((rows[1:] == rows[:-1]).sum())
    # Without duplicates, an equal count means that all rows of a span were found.
    spans = sorted(spans)
    expected = sum(count for _, count in spans)
    found = sum(int(numpy.searchsorted(rows, first + count) - numpy.searchsorted(rows, first)) for first, count in spans)
    ok = expected == found == len(rows) and duplicates == 0
    print(f"records: {expected} expected, {len(rows)} found, {expected - found} lost, {duplicates} duplicates: {'ok' if ok else 'WRONG'}")
    return ok


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def percentiles(values):
    values = sorted(values)
    at = lambda share: quantile(values, share)
    return f"p50 {1e3 * at(0.5):.1f} ms, p90 {1e3 * at(0.9):.1f} ms, p99 {1e3 * at(0.99):.1f} ms, max {1e3 * values[-1]:.1f} ms"

