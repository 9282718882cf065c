#!/usr/bin/env python3
"""Load by concurrent clients: images for synchronous encoding, images for the journal, and more than the daemon can process.

Prints rates and latencies next to the bare inference time, and checks that every acknowledged record is in the output once.
Needs pyarrow.

usage: load.py --images FOLDER [--clients 32] [--requests 10000] [--binary PATH] [--work FOLDER]
"""
import collections
import http.client
import json
import pathlib
import sys
import threading
import time

from common import Daemon, check_once, column, percentiles, photos, program, quantile, workplace

PIPELINE = photos('''kind = "http"
listen = "127.0.0.1:0"
records = "images"
limits = { requests = 64, backlog = "64MiB" }''', "5s")


def arguments():
    parser = program(__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=10_000)
    return parser.parse_args()


class Clients:
    """Threads that send images one after another over persistent connections."""

    def __init__(self, address, images, path, clients, requests):
        self.host, self.port = address.split(":")
        self.images, self.path = images, path
        self.left, self.lock = requests, threading.Lock()
        self.statuses, self.seconds, self.rows = collections.Counter(), [], []
        threads = [threading.Thread(target=self.work, args=(number,)) for number in range(clients)]
        started = time.perf_counter()
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.seconds_taken = time.perf_counter() - started

    def work(self, number):
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=120)
        while True:
            with self.lock:
                if self.left == 0:
                    return
                self.left -= 1
            image = self.images[(number * 7919 + self.left) % len(self.images)]
            started = time.perf_counter()
            try:
                connection.request("POST", self.path, body=image, headers={"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                status, body = response.status, response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                status, body = 0, b""
            seconds_taken = time.perf_counter() - started
            with self.lock:
                self.statuses[status] += 1
                self.seconds.append(seconds_taken)
                if status == 202:
                    self.rows.append(json.loads(body)["first"])
            if status == 429:
                time.sleep(0.05)

    def print_summary(self, name):
        rate = sum(self.statuses.values()) / self.seconds_taken
        print(f"{name}: {dict(self.statuses)}, {rate:.0f}/s, {percentiles(self.seconds)}", flush=True)


def main():
    options = arguments()
    images = [path.read_bytes() for path in sorted(pathlib.Path(options.images).rglob("*.jpg"))[:500]]
    work = workplace(options)
    (work / "p.toml").write_text(PIPELINE)
    daemon = Daemon(work, options.binary)
    source = daemon.address("listening on http://")
    print("usage at the start:", daemon.usage())
    alone = Clients(source, images, "/v1/encode", 1, 300)
    alone.print_summary("encode, 1 client")
    calls, seconds = daemon.metric("latentflow_inference_seconds_count"), daemon.metric("latentflow_inference_seconds_sum")
    bare = 1e3 * seconds / calls * 2
    print(f"bare inference: {bare:.2f} ms for encoder and decoder, one image per call")
    for clients in [8, options.clients]:
        encode = Clients(source, images, "/v1/encode", clients, options.requests // 4)
        encode.print_summary(f"encode, {clients} clients")
        p50, p99 = (1e3 * quantile(encode.seconds, share) for share in (0.5, 0.99))
        print(f"/v1/encode by {clients} clients: p50 {p50:.1f} ms, p99 {p99:.1f} ms; bare inference {bare:.2f} ms")
    print("usage:", daemon.usage())
    rows = []
    accepted = Clients(source, images, "/v1/records", options.clients, options.requests)
    accepted.print_summary(f"records, {options.clients} clients")
    rows += accepted.rows
    flood = Clients(source, images, "/v1/records", 4 * options.clients, options.requests)
    flood.print_summary(f"records, {4 * options.clients} clients")
    rows += flood.rows
    print("usage after overload:", daemon.usage())
    expected = len(rows)
    daemon.wait(lambda: len(column(work / "out", "row")) >= expected or None, 600)
    daemon.stop()
    sys.exit(0 if check_once("records", rows, column(work / "out", "row")) else 1)


main()
