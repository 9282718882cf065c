#!/usr/bin/env python3
"""Measures latencies: the time from the start of the process to the first record in the output, and the answers of `/v1/encode`.

*First record*: latentflow starts on an input of one batch, of feature records or of photographs, and the time ends when a Parquet file has
its final name. Works alternate; the figures are of all starts.

*Requests*: photographs are posted to `/v1/encode`, which answers with their latents. Clients that each send the next request after an answer
find the maximum throughput. Then requests arrive at random at half of it, independent of answers, and a latency counts from the time at which
the request was due, so that a wait for a free connection is part of it. The clients run in one process on the cores that latentflow uses, so
their CPU time, which is printed, lowers the throughput. So does any other load of the machine, which lengthens the latencies far more than
the CPU time per request.

usage: latency.py [--starts 10] [--seconds 20] [--no-build]
"""
import argparse
import itertools
import os
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import threading
import time

from compare import CORES, build, install, processor
from workloads import BENCH, ENCODE, REPOSITORY, WORKLOADS, model, pipeline, source

#: One batch of each work, by the defaults of a pipeline.
FIRST = {"records": 8192, "photos": 32}
CLIENTS = [1, 2, 4, 8, 16]
CONNECTIONS = 64
PHOTOGRAPHS = 100

SERVICE = """
[models.m]
path = "{model}"
[stages.in]
kind = "http"
listen = "127.0.0.1:0"
records = "images"
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--no-build", action="store_true", help="use the program that is in target/release")
    return parser.parse_args()


def first_record(binary, file, out, environment):
    """The seconds from the start of the process to the first file of the output."""
    shutil.rmtree(out, ignore_errors=True)
    words = [binary, "run", file, "--summary", "none", "--log-format", "text"]
    began = time.perf_counter()
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        while not any(out.glob("*.parquet")):
            if run.poll() not in (None, 0):
                raise SystemExit(f"latentflow failed: {run.stderr.read()[-2000:]}")
            time.sleep(0.001)
        took = time.perf_counter() - began
    return took


def starts(binary, count, environment):
    files, out = {}, BENCH / "out/first"
    for name, records in FIRST.items():
        workload = WORKLOADS[name]
        files[name] = BENCH / f"first-{name}.toml"
        files[name].write_text(pipeline(workload, source(name, workload, records, None), model(workload, binary), out))
    took = {name: [] for name in FIRST}
    # The first start of each reads the program and the input from the disk, and is not counted.
    for number in range(count + 1):
        for name, file in files.items():
            seconds = first_record(binary, file, out, environment)
            if number > 0:
                took[name].append(1000 * seconds)
    print(f"\nfirst record, {count} starts{'':<14}{'median ms':>12}{'least ms':>12}{'most ms':>12}")
    for name, values in took.items():
        print(f"{name:<40}{statistics.median(values):>12.1f}{min(values):>12.1f}{max(values):>12.1f}", flush=True)


class Client:
    """A connection that posts one request at a time. http.client would take more of the cores."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, request):
        self.socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.receive()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head[:16]:
            raise OSError(f"refused: {head.decode(errors='replace')}")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self.receive()

    def receive(self):
        read = self.socket.recv(65536)
        if not read:
            raise OSError("the server closed the connection")
        return read


def together(count, work):
    """Runs `work` on threads, and raises the first error of any of them. Returns the CPU seconds of this process."""
    faults, used = [], time.process_time()

    def guarded():
        try:
            work()
        except OSError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if faults:
        raise SystemExit(f"{len(faults)} clients failed: {faults[0]}")
    return time.process_time() - used


def closed(port, requests, clients, seconds):
    """The latencies of clients that each send the next request after an answer, and the CPU seconds of the clients."""
    latencies, end = [], time.perf_counter() + seconds

    def work():
        client, number = Client(port), random.randrange(len(requests))
        while (began := time.perf_counter()) < end:
            client.post(requests[number % len(requests)])
            latencies.append(time.perf_counter() - began)
            number += 1

    return latencies, together(clients, work)


def opened(port, requests, rate, seconds):
    """The latencies of requests that arrive at a rate, and the CPU seconds of the clients."""
    draw, due, arrivals = random.Random(1), 0.0, []
    while (due := due + draw.expovariate(rate)) < seconds:
        arrivals.append(due)
    latencies, lock, left = [], threading.Lock(), iter(arrivals)
    clients = [Client(port) for _ in range(CONNECTIONS)]
    free, began = iter(clients), time.perf_counter() + 0.2

    def work():
        with lock:
            client = next(free)
        for number in itertools.count():
            with lock:
                arrival = next(left, None)
            if arrival is None:
                return
            time.sleep(max(began + arrival - time.perf_counter(), 0))
            client.post(requests[number % len(requests)])
            latencies.append(time.perf_counter() - began - arrival)

    return latencies, together(CONNECTIONS, work)


def percentile(latencies, share):
    return 1000 * sorted(latencies)[min(int(len(latencies) * share), len(latencies) - 1)]


def cpu_seconds(pid):
    fields = pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def phase(name, run, seconds, work):
    """Prints a row for the requests of `work`, and returns their rate."""
    before = cpu_seconds(run.pid)
    latencies, used = work()
    rate, clients, own = len(latencies) / seconds, 100 * used / seconds / CORES, 1000 * (cpu_seconds(run.pid) - before) / len(latencies)
    print(f"{name:<40}{rate:>12.0f}{percentile(latencies, 0.5):>9.1f}{percentile(latencies, 0.99):>9.1f}{own:>12.2f}{clients:>11.0f} %", flush=True)
    return rate


def service(binary, seconds, environment):
    out, file = BENCH / "out/service", BENCH / "service.toml"
    shutil.rmtree(out, ignore_errors=True)
    workload = WORKLOADS["photos"]
    file.write_text((SERVICE + ENCODE).format(model=model(workload, binary), out=out))
    place = source("photos", workload, PHOTOGRAPHS, None)
    requests = [post(photograph.read_bytes()) for photograph in sorted(place.iterdir())]
    words = [binary, "run", file, "--summary", "none", "--log-format", "text"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        try:
            log, port = [], None
            while port is None:
                line = run.stderr.readline()
                log.append(line)
                if not line:
                    raise SystemExit(f"latentflow failed: {''.join(log)[-2000:]}")
                _, found, rest = line.partition("listening on http://127.0.0.1:")
                port = int(rest.split()[0].rstrip("/")) if found else None
            # The program blocks if the pipe of its log is full.
            threading.Thread(target=run.stderr.read, daemon=True).start()
            closed(port, requests, 2, 1)
            print(f"\n/v1/encode, 481x321 JPEG{'':<16}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms each':>12}{'clients CPU':>13}")
            short = seconds / 4
            most = max(phase(f"clients: {count}", run, short, lambda: closed(port, requests, count, short)) for count in CLIENTS)
            phase(f"arrivals at half of {most:.0f}/s", run, seconds, lambda: opened(port, requests, most / 2, seconds))
        finally:
            run.terminate()


def post(body):
    head = f"POST /v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main():
    options = arguments()
    os.chdir(REPOSITORY)
    binary, _ = build(options.no_build)
    packages = install(False)
    library = next((REPOSITORY / ".runtime/onnxruntime").glob("libonnxruntime.*"))
    environment = {**os.environ, "ORT_DYLIB_PATH": str(library)}
    version = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    print(f"{version}; {processor()}, {CORES} cores, which the clients share")
    print(", ".join(packages))
    starts(binary, options.starts, environment)
    service(binary, options.seconds, environment)
    print("\nCPU ms each: CPU time of latentflow per request; clients CPU: that of the clients, as a share of the time of all cores")


if __name__ == "__main__":
    main()
