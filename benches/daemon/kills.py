#!/usr/bin/env python3
"""A daemon that watches a folder while files arrive, some broken and some large; it is killed again and again.

In the end every file is in the latents or in the rejects, once. Needs pyarrow, and images to copy.

usage: kills.py --images FOLDER [--broken FOLDER] [--kills 20] [--files 2000] [--binary PATH] [--work FOLDER]
"""
import os
import pathlib
import random
import shutil
import sys
import threading
import time

from common import Daemon, column, once, photos, program, workplace

PIPELINE = photos('''kind = "images"
path = "in"
watch = true
rescan = "10s"''', "2s")


def arguments():
    parser = program(__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--broken")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=2000)
    return parser.parse_args()


def arrive(sources, folder, count, names, done):
    """Puts files into the folder at random moments, in three ways."""
    rng = random.Random(1)
    for number in range(count):
        source = rng.choice(sources)
        name = f"{number // 100:02}/{number:06}{source.suffix.lower()}"
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        way = rng.random()
        if way < 0.5:
            hidden = target.with_name("." + target.name)
            shutil.copyfile(source, hidden)
            os.rename(hidden, target)
        else:
            with open(source, "rb") as data, open(target, "wb") as file:
                while part := data.read(100_000 if way < 0.75 else 4_000):
                    file.write(part)
        names.append(name)
        time.sleep(rng.expovariate(count / 90))
    done.set()


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
    daemon = Daemon(work, options.binary)
    threading.Thread(target=arrive, args=(sources, work / "in", options.files, names, done), daemon=True).start()
    for kill in range(options.kills):
        time.sleep(rng.uniform(0.5, 6))
        daemon.kill()
        daemon = Daemon(work, options.binary)
        print(f"kill {kill + 1}: {len(names)} files have come", flush=True)
    done.wait()
    rejects = work / "out/_latentflow/rejects"
    daemon.wait(lambda: len(column(work / "out", "source")) + len(column(rejects, "source")) >= len(names) or None)
    print("usage:", daemon.usage())
    daemon.stop()
    sys.exit(0 if once("files", names, column(work / "out", "source"), column(rejects, "source")) else 1)


main()
