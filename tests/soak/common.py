"""Common code of the programs in this folder: a daemon, its metrics, requests, and Parquet output. Needs only Python."""
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
    """The program with a pipeline in a folder; it logs to daemon.log there."""

    def __init__(self, folder, binary, metrics="127.0.0.1:0", arguments=()):
        self.folder = pathlib.Path(folder)
        self.log = open(self.folder / "daemon.log", "ab")
        self.began = self.log.tell()
        command = [str(binary), "run", "p.toml", "--metrics", metrics, "--log-format", "text", *arguments]
        self.child = subprocess.Popen(command, cwd=folder, stderr=self.log, stdout=subprocess.DEVNULL)
        self.admin = self.wait(lambda: self.address("metrics at http://"))
        self.wait(lambda: self.get("/readyz") is not None or None)

    def wait(self, look, seconds=120):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = look()
            if found is not None:
                return found
            if self.child.poll() is not None:
                raise SystemExit(f"the daemon ended: {(self.folder / 'daemon.log').read_text()[-2000:]}")
            time.sleep(0.05)
        raise SystemExit("timed out")

    def address(self, words):
        text = (self.folder / "daemon.log").read_bytes()[self.began:].decode()
        found = re.search(re.escape(words) + r"([0-9.:]+)", text)
        return found and found[1]

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def post(self, path):
        host, port = self.admin.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.request("POST", path, body=b"")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def metric(self, name):
        """The sum over all labels."""
        text = self.get("/metrics") or ""
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)
        return sum(float(value) for value in values)

    def usage(self):
        """Resident bytes, open files, threads."""
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
    """A column of all Parquet files directly in a folder. Needs pyarrow."""
    import pyarrow.parquet as parquet

    files = sorted(pathlib.Path(folder).glob("*.parquet"))
    return [value for file in files for value in parquet.read_table(file, columns=[name])[name].to_pylist()]


def once(what, wanted, *met):
    """Prints whether the values that were found are exactly the expected ones, each once."""
    all_met = sorted(value for values in met for value in values)
    ok = all_met == sorted(wanted)
    lost = len(set(wanted) - set(all_met))
    twice = len(all_met) - len(set(all_met))
    print(f"{what}: {len(wanted)} expected, {len(all_met)} found, {lost} lost, {twice} duplicates: {'ok' if ok else 'WRONG'}")
    return ok


def rows_once(spans, folder):
    """Prints whether the rows of spans `(first, count)` are those of a folder's column `row`, each once; for hundreds of
    millions of rows."""
    import numpy
    import pyarrow.parquet as parquet

    files = sorted(pathlib.Path(folder).glob("*.parquet"))
    met = numpy.concatenate([parquet.read_table(file, columns=["row"])["row"].to_numpy() for file in files])
    met.sort()
    twice = int((met[1:] == met[:-1]).sum())
    # Without duplicates, an equal count means that all rows of a span were found.
    spans = sorted(spans)
    wanted = sum(count for _, count in spans)
    found = sum(int(numpy.searchsorted(met, first + count) - numpy.searchsorted(met, first)) for first, count in spans)
    ok = wanted == found == len(met) and twice == 0
    print(f"records: {wanted} expected, {len(met)} found, {wanted - found} lost, {twice} duplicates: {'ok' if ok else 'WRONG'}")
    return ok


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def percentiles(values):
    values = sorted(values)
    at = lambda share: quantile(values, share)
    return f"p50 {1e3 * at(0.5):.1f} ms, p90 {1e3 * at(0.9):.1f} ms, p99 {1e3 * at(0.99):.1f} ms, max {1e3 * values[-1]:.1f} ms"

