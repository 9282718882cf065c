#!/usr/bin/env python3
"""Runs a daemon at full load and replaces its models every minute, sometimes with a broken model.

Prints its resource usage and the growth of its memory. Needs pyarrow.

usage: soak.py [--minutes 30] [--every 60] [--clients 4] [--binary PATH] [--work FOLDER]
"""
import http.client
import json
import pathlib
import random
import shutil
import sys
import threading
import time
import tomllib

from common import REPOSITORY, Daemon, check_rows_once, program, workplace

MODEL = REPOSITORY / "models/kdd-ae"


def arguments():
    parser = program(__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=60)
    parser.add_argument("--clients", type=int, default=4)
    return parser.parse_args()


def install_model(work, number, broken=False):
    """Installs a model that differs from the previous one only in its preprocessing."""
    staged = work / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(MODEL, staged)
    card = (staged / "model.toml").read_text().replace("max = [26525.0,", f"max = [{26525 + number}.0,")
    (staged / "model.toml").write_text(card)
    if broken:
        file = staged / "encoder.onnx"
        file.write_bytes(file.read_bytes()[:5000])
    (work / "model").mkdir(exist_ok=True)
    for file in ["encoder.onnx", "decoder.onnx", "model.toml"]:
        (staged / file).rename(work / "model" / file)


def pipeline(columns):
    return f"""
[models.kdd]
path = "model"

[stages.in]
kind = "http"
listen = "127.0.0.1:0"
records = "features"
columns = {{ {", ".join(f'{name} = "float"' for name in columns)} }}

[stages.features]
kind = "features"
inputs = ["in"]
model = "kdd"

[stages.codes]
kind = "encode"
inputs = ["features"]
model = "kdd"
reconstruct = true

[stages.out]
kind = "parquet"
inputs = ["codes"]
path = "out"
columns = ["row", "latent", "reconstruction_error"]

[commit]
age = "10s"
"""


def send(address, body, records, rows, failed, until):
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    while time.monotonic() < until:
        try:
            connection.request("POST", "/v1/records", body=body, headers={"Content-Type": "application/x-ndjson"})
            response = connection.getresponse()
            body_json = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            failed.append(str(error))
            connection.close()
            continue
        if response.status == 202:
            rows.append((body_json["first"], records))
        elif response.status == 429:
            time.sleep(0.05)
        else:
            failed.append(str(body_json))


def slope(samples):
    """Returns the growth in bytes per minute, by least squares."""
    times, values = [at for at, _ in samples], [value for _, value in samples]
    mean_time, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - mean_time) ** 2 for at in times)
    return 60 * sum((at - mean_time) * (value - mean) for at, value in samples) / spread


def main():
    options = arguments()
    columns = tomllib.loads((MODEL / "model.toml").read_text())["input"]["columns"]
    work = workplace(options)
    install_model(work, 0)
    (work / "p.toml").write_text(pipeline(columns))
    rng, records = random.Random(3), 200
    body = "".join(json.dumps({name: rng.random() for name in columns}) + "\n" for _ in range(records)).encode()
    daemon = Daemon(work, options.binary)
    source = daemon.address("listening on http://")
    started = time.monotonic()
    until = started + 60 * options.minutes
    rows, failed, samples = [], [], []
    senders = [
        threading.Thread(target=send, args=(source, body, records, rows, failed, until)) for _ in range(options.clients)
    ]
    [sender.start() for sender in senders]
    reloads = refused = 0
    while time.monotonic() < until:
        pause = min(time.monotonic() + options.every, until)
        while time.monotonic() < pause:
            time.sleep(5)
            samples.append((time.monotonic() - started, daemon.usage()[0]))
        if time.monotonic() >= until:
            break
        reloads += 1
        broken = reloads % 7 == 3
        install_model(work, reloads, broken)
        status, message = daemon.post("/v1/reload")
        refused += status == 409
        if (status == 409) != broken:
            failed.append(f"reload {reloads}: {status} {message}")
        minutes = (time.monotonic() - started) / 60
        print(f"{minutes:5.1f} min: reload {reloads}: {status} {message.strip()[:90]}; usage {daemon.usage()}", flush=True)
    [sender.join() for sender in senders]
    second_half = [sample for sample in samples if sample[0] > samples[-1][0] / 2]
    print(f"{reloads} reloads, {refused} refused, generation {daemon.metric('latentflow_model_generation'):.0f}; failures: {failed[:3]}")
    print(f"slope of resident memory over the second half: {slope(second_half) / 1024:.1f} KiB per minute")
    daemon.stop()
    sys.exit(0 if check_rows_once(rows, work / "out") and not failed else 1)


main()
