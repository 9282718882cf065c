#!/usr/bin/env python3
"""Kills a daemon repeatedly while it watches a folder in which files arrive, some of them broken or large.

Checks that every file is in the latents or in the rejects exactly once. With --prometheus, a Prometheus with the configuration
of deploy/ scrapes the daemon, and the queries of the dashboard are run on it. Needs pyarrow, and images to copy.

usage: kills.py --images FOLDER [--broken FOLDER] [--kills 20] [--files 4000] [--prometheus] [--binary PATH] [--work FOLDER]
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

from common import REPOSITORY, Daemon, check_once, column, photos, program, workplace

PIPELINE = photos('''kind = "images"
path = "in"
watch = true
rescan = "10s"''', "2s")


def arguments():
    parser = program(__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--broken")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--prometheus", action="store_true", help="needs prometheus and promtool on the PATH")
    return parser.parse_args()


def arrive(sources, folder, count, names, done):
    """Writes files to the folder at random times: renamed into place, or written in pieces of 100,000 or 4,000 bytes."""
    rng = random.Random(1)
    for number in range(count):
        source = rng.choice(sources)
        name = f"{number // 100:02}/{number:06}{source.suffix.lower()}"
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        method = rng.random()
        if method < 0.5:
            hidden = target.with_name("." + target.name)
            shutil.copyfile(source, hidden)
            os.rename(hidden, target)
        else:
            with open(source, "rb") as data, open(target, "wb") as file:
                while part := data.read(100_000 if method < 0.75 else 4_000):
                    file.write(part)
        names.append(name)
        time.sleep(rng.expovariate(count / 90))
    done.set()


class Prometheus:
    """Prometheus with the configuration of deploy/, except for its port."""

    target = "127.0.0.1:9464"
    url = "http://127.0.0.1:9465"

    def __init__(self, work):
        config = REPOSITORY / "deploy/prometheus/prometheus.yml"
        command = [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={work}/prometheus", "--log.level=warn",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self.child = subprocess.Popen(command)

    def query(self, expression):
        url = f"{self.url}/api/v1/query?query={urllib.parse.quote(expression)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]["result"]

    def check_and_stop(self, daemon):
        """Prints the scrapes and alerts; returns whether all queries have data and the metrics follow the conventions."""
        # Rates require two scrapes.
        time.sleep(2.5 * 15)
        for name, expression in [
            ("scrapes", 'count_over_time(up{job="latentflow"}[1d])'),
            ("successful scrapes", 'sum_over_time(up{job="latentflow"}[1d])'),
        ]:
            print(f"prometheus: {name}: {[series['value'][1] for series in self.query(expression)]}")
        alerts = {series["metric"]["alertname"] + " " + series["metric"]["alertstate"] for series in self.query("ALERTS")}
        print("prometheus: alerts:", sorted(alerts))
        queries = subprocess.run([sys.executable, str(REPOSITORY / "deploy/check.py"), self.url]).returncode
        metrics = subprocess.run(["promtool", "check", "metrics"], input=daemon.get("/metrics"), text=True).returncode
        self.child.terminate()
        self.child.wait()
        return queries == 0 and metrics == 0


def main():
    options = arguments()
    suffixes = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
    found = lambda folder: [path for path in pathlib.Path(folder).rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    sources = found(options.images)
    if options.broken:
        sources += found(options.broken)[: max(1, len(sources) // 4)]
    work = workplace(options)
    (work / "in").mkdir(parents=True, exist_ok=True)
    (work / "p.toml").write_text(PIPELINE)
    names, done, rng = [], threading.Event(), random.Random(2)
    prometheus = Prometheus(work) if options.prometheus else None
    metrics = Prometheus.target if options.prometheus else "127.0.0.1:0"
    daemon = Daemon(work, options.binary, metrics)
    threading.Thread(target=arrive, args=(sources, work / "in", options.files, names, done), daemon=True).start()
    for kill in range(options.kills):
        time.sleep(rng.uniform(0.5, 6))
        daemon.kill()
        daemon = Daemon(work, options.binary, metrics)
        print(f"kill {kill + 1}: {len(names)} files have arrived", flush=True)
    done.wait()
    rejects = work / "out/_latentflow/rejects"
    daemon.wait(lambda: len(column(work / "out", "source")) + len(column(rejects, "source")) >= len(names) or None)
    print("usage:", daemon.usage())
    monitored = prometheus is None or prometheus.check_and_stop(daemon)
    daemon.stop()
    complete = check_once("files", names, column(work / "out", "source"), column(rejects, "source"))
    sys.exit(0 if complete and monitored else 1)


main()
