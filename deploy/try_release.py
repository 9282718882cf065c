"""Tries the files of a release in bare Debian roots. deploy/try-release.sh calls it, in mount and process namespaces of its own.

    deploy/try_release.py FILES WORK

FILES has the files of the release, and WORK is an empty folder for the roots. Programs of the release run as a user without
rights, in a network without other hosts. The exit code is 1 if a step fails.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import dockerfile

DEPLOY = Path(__file__).resolve().parent
CHECKOUT = DEPLOY.parent
# A user without rights, and the folder in which it works.
USER, HOME = "1000:1000", "/home/user"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Seconds after which a program that should have ended or answered counts as hanging.
PATIENCE = 300

# Photographs for the other steps: the command line writes them.
JPEGS = """
[models.photo]
path = "models/photo-ae"
[stages.images]
kind = "synthetic"
content = "images"
records = 20
[stages.pixels]
kind = "pixels"
inputs = ["images"]
model = "photo"
[stages.files]
kind = "images"
inputs = ["pixels"]
column = "pixels"
path = "photos"
format = "jpeg"
"""


class Failure(Exception):
    """A step has failed; the message has the reason."""


def expect(holds, reason):
    if not holds:
        raise Failure(reason)


def run(command, **options):
    """Runs a command and returns its standard output. A failure contains the end of what the command has written."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    expect(done.returncode == 0, f"`{shlex.join(map(str, command))}` ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def size(path):
    return f"{int(run(['du', '-sm', '--one-file-system', path]).split()[0])} MiB"


class Table:
    """The steps that were tried, with their times and results."""

    def __init__(self):
        self.rows, self.failed = [], False

    @contextlib.contextmanager
    def step(self, root, what):
        start, result = time.monotonic(), []
        try:
            yield result
        except Exception:
            self.add(root, what, start, "FAILED")
            raise
        self.add(root, what, start, ", ".join(result) or "ok")

    @contextlib.contextmanager
    def attempt(self, root):
        """The steps of a root, of which the first failure ends the others."""
        try:
            yield
        except Exception as error:
            self.failed = True
            print(f"{root}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    def add(self, root, what, start, result):
        self.rows.append((root, what, f"{time.monotonic() - start:.1f} s", result))
        print(*self.rows[-1], sep=" | ", flush=True)

    def __str__(self):
        rows = [("root", "step", "time", "result"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def mount_kernel(root):
    """Mounts what the kernel has about processes and processors."""
    run(["mount", "-t", "proc", "proc", root / "proc"])
    run(["mount", "-t", "sysfs", "-o", "ro", "sysfs", root / "sys"])


class Root:
    """A folder with a system, in which commands run."""

    def __init__(self, path):
        self.path = path
        mount_kernel(path)

    @classmethod
    def copy(cls, base, path):
        run(["cp", "-a", base, path])
        return cls(path)

    def line(self, command, cwd="/", env=(), user=None):
        """The command line that runs a command in this root, without the variables of the host."""
        variables = [f"{name}={value}" for name, value in {"PATH": SEARCH_PATH, "HOME": HOME, **dict(env)}.items()]
        rights = []
        if user:
            number, group = user.split(":")
            rights = ["setpriv", f"--reuid={number}", f"--regid={group}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
            rights += ["--inh-caps=-all", "--"]
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', cwd, *command]
        return ["chroot", self.path, "env", "-i", *variables, *rights, *inside]

    def setup(self, command, **options):
        """Runs a command as root, with the network of the host."""
        return run(self.line(command, **options))

    def isolated(self, command, user=USER, **options):
        """The command line that runs a command without rights, in a network without other hosts."""
        loopback = ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        return [*loopback, *self.line(command, user=user, **options)]

    def run(self, command, **options):
        return run(self.isolated(command, **options), timeout=PATIENCE)

    def with_user(self):
        """Adds the user that programs run as."""
        self.setup(["useradd", "--uid", USER.split(":")[0], "--create-home", "--home-dir", HOME, "user"])
        return self

    def give(self, source, to):
        """Copies a file or a folder into the home folder of the user."""
        target = self.path / HOME.lstrip("/") / to
        target.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "-aT", source, target])
        self.setup(["chown", "-R", USER, HOME])


def poll(what, condition, process):
    """Waits until a condition holds while a process runs."""
    end = time.monotonic() + PATIENCE
    while not condition():
        expect(process.poll() is None, f"the process ended with {process.poll()} before {what}: {process.log.read_text()[-2000:]}")
        expect(time.monotonic() < end, f"waited {PATIENCE} s for {what}")
        time.sleep(0.2)


@contextlib.contextmanager
def started(command, log):
    """A process that is killed unless it ends by itself; its messages are in the file `log`."""
    with log.open("w") as messages:
        process = subprocess.Popen(command, stdout=messages, stderr=messages)
    process.log = log
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def terminate(process, exit_code):
    process.send_signal(signal.SIGTERM)
    found = process.wait(timeout=PATIENCE)
    expect(found == exit_code, f"expected exit code {exit_code} after SIGTERM, not {found}: {process.log.read_text()[-2000:]}")


def rows(inspected):
    found = re.search(r"^rows +(\d+) ", inspected, re.MULTILINE)
    expect(found, f"`inspect` prints no number of rows: {inspected}")
    return int(found[1])


class Release:
    """The files of the release."""

    def __init__(self, folder):
        self.folder = folder
        self.tarball = self.one("latentflow-*-x86_64-linux.tar.gz")
        self.wheel = self.one("latentflow-*.whl")
        self.name = self.tarball.name.removesuffix(".tar.gz")
        self.version = f"latentflow {self.name.split('-')[1]}"

    def one(self, pattern):
        found = sorted(self.folder.glob(pattern))
        expect(len(found) == 1, f"expected one file {pattern} in {self.folder}, found {len(found)}; build it with `make release`")
        return found[0]


def try_program(table, release, root, work):
    """The tarball where nothing is installed but the base system."""
    name, inside = "nothing", f"{HOME}/{release.name}"
    latentflow = f"{inside}/latentflow"
    with table.step(name, "checksums and tarball") as result:
        root.give(release.folder, "release")
        root.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=f"{HOME}/release")
        root.run(["tar", "-xzf", f"release/{release.tarball.name}"], cwd=HOME)
        result += [f"{release.tarball.stat().st_size / 1e6:.1f} MB packed", f"{size(root.path / inside.lstrip('/'))} unpacked"]
    with table.step(name, "latentflow --version") as result:
        shown = root.run([latentflow, "--version"]).strip()
        expect(shown == release.version, f"expected {release.version}, not {shown}")
        result.append(shown)
    with table.step(name, "quickstart to Parquet") as result:
        done = json.loads(root.run([latentflow, "run", "pipelines/quickstart.toml", "--summary", "json"], cwd=inside))
        expect((done["records"], done["rejects"]) == (1000, 0), f"expected 1000 records and no rejects: {done}")
        result.append(f"{done['records']} records, {done['records_per_second']:.0f}/s")
    with table.step(name, "latentflow inspect") as result:
        result.append(f"{rows(root.run([latentflow, 'inspect', 'demo/latents'], cwd=inside))} rows")
        expect(result == ["1000 rows"], f"expected 1000 rows, not {result}")
    with table.step(name, "completions and manual pages") as result:
        read = lambda path: (root.path / inside.lstrip("/") / path).read_text()
        for shell, path in (("bash", "latentflow.bash"), ("zsh", "_latentflow"), ("fish", "latentflow.fish")):
            expect(read(f"completions/{path}") == root.run([latentflow, "completions", shell]), f"completions/{path} differs")
        loaded = root.run(["bash", "-c", "source completions/latentflow.bash && complete -p latentflow"], cwd=inside)
        expect("latentflow" in loaded, f"bash does not load the completions: {loaded}")
        expect(read("man/man1/latentflow.1") == root.run([latentflow, "man"]), "man/man1/latentflow.1 differs")
        pages = list((root.path / inside.lstrip("/") / "man/man1").glob("latentflow-*.1"))
        expect(len(pages) > 10, f"expected a page for each command, found {pages}")
        result.append(f"3 scripts, {len(pages) + 1} pages")
    with table.step(name, "SIGTERM drains with exit code 4") as result:
        many = ["--set", "stages.photos.records=100000000", "--set", "stages.out.file.records=2000"]
        many += ["--set", "stages.out.path=many", "--set", "rejects.path=many-rejects"]
        command = root.isolated([latentflow, "run", "pipelines/quickstart.toml", *many], cwd=inside)
        with started(command, work / "run.log") as process:
            poll("the first file", lambda: list((root.path / inside.lstrip("/")).glob("many/*.parquet")), process)
            terminate(process, 4)
        result.append(f"{rows(root.run([latentflow, 'inspect', 'many'], cwd=inside))} rows")
    with table.step(name, "images as JPEG, by a link on the PATH"):
        (root.path / "usr/local/bin/latentflow").symlink_to(latentflow)
        (root.path / inside.lstrip("/") / "jpegs.toml").write_text(JPEGS)
        root.run(["latentflow", "run", "jpegs.toml"], cwd=inside)
        shutil.copytree(root.path / inside.lstrip("/") / "photos", work / "photos", ignore=shutil.ignore_patterns("_latentflow"))
        expect(len(list((work / "photos").iterdir())) == 20, "expected 20 photographs")


def ten_lines():
    """The example of docs/guides/python.md."""
    text = (CHECKOUT / "docs/guides/python.md").read_text()
    found = re.search(r"^## Ten lines to latents\n\n```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    expect(found, "docs/guides/python.md has no example below `Ten lines to latents`")
    return found[1]


def try_wheel(table, release, root, work):
    """The wheel where only Python is installed."""
    name, wheels = "python", work / "wheels"
    with table.step(name, "apt-get install python3 python3-venv") as result:
        root.setup(["apt-get", "update"])
        root.setup(["apt-get", "install", "--yes", "--no-install-recommends", "python3", "python3-venv"])
        version = root.setup(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
        result.append(f"Python {version}")
    with table.step(name, "pip download, outside of the root") as result:
        platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(28, 16, -1)] + ["--platform=manylinux2014_x86_64"]
        options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={version}", *platforms, "--dest", wheels]
        run(["python3", "-m", "pip", "download", "--quiet", *options, release.wheel, "polars"])
        result += [f"{release.wheel.stat().st_size / 1e6:.1f} MB wheel", f"{size(wheels)} with dependencies"]
    root.give(wheels, "wheels")
    with table.step(name, "pip install, without a network") as result:
        root.run(["python3", "-m", "venv", "venv"], cwd=HOME)
        install = ["venv/bin/pip", "install", "--quiet", "--no-index", "--find-links", "wheels"]
        root.run([*install, f"wheels/{release.wheel.name}"], cwd=HOME)
        result.append(size(root.path / HOME.lstrip("/") / "venv"))
        root.run([*install, "polars"], cwd=HOME)
    with table.step(name, "ten lines of docs/guides/python.md") as result:
        root.give(work / "photos", "photos")
        unpacked = work / "nothing" / HOME.lstrip("/") / release.name
        for part in ("models", "pipelines"):
            root.give(unpacked / part, part)
        (work / "ten.py").write_text(ten_lines())
        root.give(work / "ten.py", "ten.py")
        root.run(["venv/bin/python", "ten.py"], cwd=HOME)
        check = "import polars as pl; t = pl.read_parquet('latents.parquet'); print(len(t), t['latent'].dtype)"
        result.append(root.run(["venv/bin/python", "-c", check], cwd=HOME).strip())
        expect(result == ["20 Array(Float32, shape=(128,))"], f"expected 20 latents of 128 values, not {result}")
    with table.step(name, "latentflow of the wheel") as result:
        latentflow = f"{HOME}/venv/bin/latentflow"
        shown = root.run([latentflow, "--version"]).strip()
        expect(shown == release.version, f"expected {release.version}, not {shown}")
        done = json.loads(root.run([latentflow, "run", "pipelines/quickstart.toml", "--summary", "json"], cwd=HOME))
        expect((done["records"], done["rejects"]) == (1000, 0), f"expected 1000 records and no rejects: {done}")
        result += [shown, f"{done['records']} records, {done['records_per_second']:.0f}/s"]


class Image:
    """The image of deploy/docker/Dockerfile, whose steps are replayed in roots."""

    def __init__(self, stages, build, root):
        self.stages, self.build, self.root = stages, build, root
        self.settings, self.notes = {}, []

    def replay_build(self, release, unpacked):
        """The first stage, with the program of the release in place of the one that it compiles."""
        source = self.build.path / "source"
        for word, text in self.stages[0].instructions:
            if word == "WORKDIR":
                expect(text == "/source", f"the build stage works in {text}; expected /source")
                source.mkdir()
                self.notes.append(f"replayed      {word} {text}")
            elif word == "COPY":
                self.copy_checkout(text.split()[:-1], source)
                self.notes.append(f"replayed      {word} {text}")
            elif word == "RUN" and "apt-get" in text:
                self.notes.append("not replayed  RUN apt-get ... (compiler and pip, in the build stage)")
            elif word == "RUN" and text == "scripts/fetch-onnxruntime.sh":
                shutil.copytree(CHECKOUT / ".runtime/onnxruntime", source / ".runtime/onnxruntime")
                self.notes.append("replaced      RUN scripts/fetch-onnxruntime.sh (the library that it has fetched in the checkout)")
            elif word == "RUN" and "cargo build" in text:
                (source / "target/release").mkdir(parents=True)
                shutil.copy(unpacked / "latentflow", source / "target/release/latentflow")
                kept = [command for command in dockerfile.commands(text) if not command.startswith("cargo build")]
                self.build.setup(["sh", "-c", " && ".join(kept)], cwd="/source")
                self.notes.append(f"replaced      RUN cargo build (the program of the release); the {len(kept)} commands after it are replayed")
            else:
                raise Failure(f"the build stage has an instruction that cannot be replayed: {word} {text}")

    def copy_checkout(self, sources, target):
        """COPY from the checkout: the files that git tracks, without those of .dockerignore."""
        listed = run(["git", "-C", CHECKOUT, "ls-files", "-z", "--", *sources]).split("\0")
        for path in (path for path in listed if path and not dockerfile.is_ignored(path, CHECKOUT / ".dockerignore")):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / path, target / path, follow_symlinks=False)

    def replay_image(self):
        """The last stage."""
        for word, text in self.stages[-1].instructions:
            if word == "RUN":
                self.root.setup(["sh", "-c", " && ".join(dockerfile.commands(text))])
            elif word == "COPY":
                expect(text == "--from=build /install /", f"expected COPY --from=build /install /, not {text}")
                run(["cp", "-a", f"{self.build.path}/install/.", self.root.path])
            elif word == "ENV":
                self.settings.setdefault("ENV", {}).update([text.split("=", 1)])
            elif word in ("ENTRYPOINT", "CMD", "VOLUME"):
                self.settings[word] = json.loads(text)
            elif word == "HEALTHCHECK":
                self.settings[word] = json.loads(text.partition("CMD ")[2])
            elif word in ("USER", "WORKDIR", "STOPSIGNAL"):
                self.settings[word] = text
            else:
                expect(word == "EXPOSE", f"the image has an instruction that cannot be replayed: {word} {text}")
            state = "not replayed" if word == "EXPOSE" else "replayed"
            self.notes.append(f"{state:14}{word} {textwrap.shorten(text, 90, placeholder=' ...')}")

    def seal(self, volumes, inputs):
        """Makes the root read-only, except for the volumes, and mounts the input."""
        root = self.root.path
        run(["mount", "--bind", root, root])
        for volume in self.settings["VOLUME"]:
            inside = root / volume.lstrip("/")
            # A new volume has the owner of the folder in the image.
            run(["cp", "-a", inside, volumes])
            run(["mount", "--bind", volumes / inside.name, inside])
        run(["mount", "--bind", inputs, root / "data/in"])
        run(["mount", "-o", "remount,bind,ro", root / "data/in"])
        run(["mount", "-o", "remount,bind,ro", root])
        mount_kernel(root)

    def command(self, *arguments):
        settings = self.settings
        return self.root.isolated(
            [*settings["ENTRYPOINT"], *arguments], user=settings["USER"], cwd=settings["WORKDIR"], env={"HOME": "/data", **settings["ENV"]}
        )


def try_image(table, release, image, work):
    """The steps of deploy/docker/Dockerfile, and its command with a read-only root."""
    name, inputs = "image", work / "in"
    inputs.mkdir()
    with table.step(name, "build stage of the Dockerfile") as result:
        image.replay_build(release, work / "nothing" / HOME.lstrip("/") / release.name)
        result.append(f"{size(image.build.path / 'install')} installed")
    with table.step(name, "runtime stage of the Dockerfile") as result:
        image.replay_image()
        result.append(size(image.root.path))
    volumes = work / "volumes"
    volumes.mkdir()
    image.seal(volumes, inputs)
    with table.step(name, "root is read-only, user has no rights") as result:
        probe = "touch /etc/x /usr/x /data/x 2>/dev/null; for f in /etc/x /usr/x /data/x; do [ ! -e $f ] || exit 1; done; id -u; touch /data/out/x && rm /data/out/x"
        identity = run(image.root.isolated(["sh", "-c", probe], user=image.settings["USER"])).strip()
        expect(identity == image.settings["USER"].split(":")[0], f"expected the user {image.settings['USER']}, not {identity}")
        result.append(f"user {identity}")
    with started(image.command(*image.settings["CMD"]), work / "image.log") as process:
        with table.step(name, "command of the image becomes healthy"):
            check = ["nsenter", f"--net=/proc/{process.pid}/ns/net", *image.root.line(image.settings["HEALTHCHECK"])]
            poll("health", lambda: subprocess.run(check, capture_output=True).returncode == 0, process)
        with table.step(name, "20 photographs become rows") as result:
            for photo in (work / "photos").iterdir():
                shutil.copy(photo, inputs / f".{photo.name}")
                (inputs / f".{photo.name}").rename(inputs / photo.name)
            poll("the first file", lambda: list(volumes.glob("out/latents/*.parquet")), process)
            result.append("committed")
        with table.step(name, f"{image.settings['STOPSIGNAL']} drains with exit code 0"):
            expect(image.settings["STOPSIGNAL"] == "SIGTERM", "expected SIGTERM as the signal that stops the image")
            terminate(process, 0)
    with table.step(name, "latentflow inspect") as result:
        result.append(f"{rows(run(image.command('inspect', 'out/latents')))} rows")
        expect(result == ["20 rows"], f"expected 20 rows, not {result}")


def suite_of(image):
    found = re.fullmatch(r"debian:(\w+)-slim", image)
    expect(found, f"the Dockerfile is based on {image}; expected debian:SUITE-slim")
    return found[1]


def main():
    release, work = Release(Path(sys.argv[1]).resolve()), Path(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    table, image = Table(), None
    stages = dockerfile.read(DEPLOY / "docker/Dockerfile")
    # Another suite may be named, such as an earlier one with an earlier glibc.
    suite = os.environ.get("LATENTFLOW_TRY_SUITE") or suite_of(stages[-1].image)
    mirror = os.environ.get("LATENTFLOW_TRY_MIRROR", "http://deb.debian.org/debian")
    base = work / "base"
    with table.step("all", f"debootstrap --variant=minbase {suite}") as result:
        run(["debootstrap", "--variant=minbase", suite, base, mirror])
        glibc = run(["chroot", base, "ldd", "--version"]).splitlines()[0].split()[-1]
        result += [f"glibc {glibc}", size(base)]
    with table.attempt("nothing"):
        try_program(table, release, Root.copy(base, work / "nothing").with_user(), work)
    # The other roots use the unpacked tarball and the photographs of the first one.
    if not table.failed:
        with table.attempt("python"):
            try_wheel(table, release, Root.copy(base, work / "python").with_user(), work)
        with table.attempt("image"):
            image = Image(stages, Root.copy(base, work / "build"), Root.copy(base, work / "image"))
            try_image(table, release, image, work)
    print(f"\n{table}\n")
    if image:
        print("The steps of deploy/docker/Dockerfile:", *image.notes, sep="\n  ")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
