"""Broken input for every reader: what crashes, runs, or takes without end.

``python benchmarks/fuzz.py`` gives each reader some ten thousand inputs, drawn by atheris (libFuzzer) from a
few whole files, with its eye on which lines of ours they reach; stored models and TOML files are broken by
hand, and checksums made right again. ``--runs 500 --only npy,folders`` gives fewer, and nothing is recorded.

An input may be read, or refused by an error of the documented types. Anything else is a finding: another
exception, a process that ends, an audit event of a program that is started or a pickle that is opened, memory
beyond a bound, seconds beyond a bound.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

DOCUMENTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
)
MEMORY = 3 * 2**30  # bytes that a process may come to hold
SECONDS = 20.0  # that one input may take
RUNS = {
    "npy": 30_000, "npz": 15_000, "csv": 15_000, "parquet": 10_000, "images": 20_000, "toml": 10_000,
    "configs": 5_000, "results": 10_000, "checkpoint": 5_000, "folders": 6_000,
}  # fmt: skip


# What is broken, and who reads it


def npy() -> list[bytes]:
    """Return whole NPY files."""
    return [_saved(np.save, np.arange(6.0).reshape(2, 3)), _saved(np.save, np.zeros((2, 3, 4), np.uint8)),
            _saved(np.save, np.array(["a", "bc"]))]  # fmt: skip


def npz() -> list[bytes]:
    return [_saved(np.savez, np.ones(3)), _saved(np.savez_compressed, np.zeros((40, 40)))]


def csv() -> list[bytes]:
    return [b"a,b\n1,x\n2,y\n", b'a;b\n"1,5";z\n', b"\xef\xbb\xbfa,b\r\n1e400,nan\r\n,\r\n", b"a,a\n1,2\n3\n"]


def parquet() -> list[bytes]:
    import polars

    frames = [polars.DataFrame({"a": [1.0, 2.0], "b": ["x", None]}), polars.DataFrame({"t": [[1, 2], [3]]})]
    return [
        _written(frame.write_parquet, compression=kind) for frame in frames for kind in ("zstd", "snappy")
    ]


def images() -> list[bytes]:
    from PIL import Image

    found = []
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        for mode in ("L", "RGB"):
            found.append(_written(Image.new(mode, (8, 6), 90).save, format=kind))
    return found


def toml() -> list[bytes]:
    return [
        b'seeds = [0, 1]\nseconds = 5.0\nresults = "a.jsonl"\n[detectors.mine]\ndetector = "gradcon"\n'
        b"epochs = 3\nsweep = {alpha = [0.1, 0.2]}\n[[run]]\n"
        b'protocol = "adbench"\ndata = ["adbench/*"]\ndetectors = ["mine"]\noptions = {known = 0.1}\n',
        b'[[run]]\nprotocol = "one-class"\ndata = "mnist"\ndetectors = "gradcon"\n',
        b'root = ".."\nfolder = "results"\n[labels]\na = "A"\n[[page]]\npath = "x.md"\n[[page.table]]\n'
        b'name = "t"\nkind = "table"\nresults = ["r.jsonl"]\n',
        b'detector = "r2ad2"\nseed = 3\n[fit]\nDATA = "x.csv"\noutput = "m"\nepochs = 5\n'
        b'normal = ["a", "b"]\n[score]\nalpha = 0.1\nbudget = 5\n',
    ]


def results() -> list[bytes]:
    cell = {"data": "a", "protocol": "b", "options": {}, "detector": "c", "settings": {}, "seed": 0}
    return [
        (json.dumps({**cell, "scores": {"score": {"auroc": 0.5}}}) + "\n").encode() * 2,
        b"{}\n",
        b'{"data"',
    ]


def checkpoint() -> list[bytes]:
    import anograd as ag

    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "partial")
        ag.GradCon(epochs=1, random_state=0, checkpoint=path).fit(_rows())
        return [path.read_bytes()]


def _rows() -> Any:
    return np.random.default_rng(0).normal(size=(20, 2))


def _saved(write: Callable[..., None], array: Any) -> bytes:
    stream = io.BytesIO()
    write(stream, array)
    return stream.getvalue()


def _written(write: Callable[..., Any], **more: Any) -> bytes:
    stream = io.BytesIO()
    write(stream, **more)
    return stream.getvalue()


def reader(name: str, place: Path) -> Callable[[bytes], None]:
    """Return what reads bytes as a file of this kind."""
    if name == "toml":
        return _toml(place / "x.toml")
    if name in ("results", "checkpoint"):
        return _kept(name, place / name)
    from anograd.files import read, scan
    from anograd.lazy import collect, is_lazy

    ending = {"npy": "x.npy", "npz": "x.npz", "csv": "x.csv", "parquet": "x.parquet"}

    def of_file(content: bytes) -> None:
        path = place / ending[name]
        path.write_bytes(content)
        read(path)
        found = scan(path)
        if is_lazy(found):
            collect(found)

    def of_image(content: bytes) -> None:
        (place / "folder").mkdir(exist_ok=True)
        (place / "folder" / "x.png").write_bytes(content)
        read(place / "folder")

    return of_image if name == "images" else of_file


def _toml(path: Path) -> Callable[[bytes], None]:
    import typer

    from anograd import cli
    from anograd.bench import pages, plan
    from anograd.cli import config

    commands = typer.main.get_command(cli.app).every()
    readers = (
        plan.read,
        lambda path: pages.fill_pages(path, check=True),
        lambda path: config.read(str(path), "fit", commands, typer.Context(commands["fit"])),
    )

    def run(content: bytes) -> None:
        if b"entrants" in content:
            return  # names a module to import: a run file with it is a program, and is said to be one
        path.write_bytes(content)
        for read in readers:
            with contextlib.suppress(*DOCUMENTED, config.Misused):
                read(path)

    return run


def _kept(name: str, path: Path) -> Callable[[bytes], None]:
    from anograd.bench import results as lines
    from anograd.checkpoint import read_state

    def run(content: bytes) -> None:
        path.write_bytes(content)
        lines.read(path) if name == "results" else read_state(path, "")

    return run


def configs(runs: int, seed: int, place: Path) -> None:
    """Read run files and command files in which a few values were changed."""
    read, draw = _toml(place / "x.toml"), random.Random(seed)
    whole = [tomllib.loads(content.decode()) for content in toml()]
    read(b"seeds = [0]")  # what is imported on first use is not the input's doing

    def one(asked: dict[str, Any]) -> None:
        changed = copy.deepcopy(asked)
        for _ in range(draw.randint(1, 3)):
            change_value(changed, draw)
        read("\n".join(f"{json.dumps(key)} = {_as_toml(value)}" for key, value in changed.items()).encode())

    watch = Watch(one, place / "told.json")
    for _ in range(runs):
        watch(draw.choice(whole))
    watch.tell()


def _as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(str(key))} = {_as_toml(one)}" for key, one in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return json.dumps("" if value is None else value)


# How


class Watch:
    """Counts inputs, and keeps what they did that is not documented, each kind of it once.

    Parameters
    ----------
    read : callable
    told : Path
        Where the findings go, after each new one.
    """

    def __init__(self, read: Callable[[Any], None], told: Path) -> None:
        self.read, self.told = read, told
        self.inputs = self.refused = 0
        self.findings: dict[str, str] = {}
        self.forbidden: list[str] = []
        self.base = peak()
        sys.addaudithook(lambda event, _: self.forbidden.append(event) if event in FORBIDDEN else None)
        self.forbidden.clear()

    def __call__(self, content: Any) -> None:
        """Give one input."""
        began = time.monotonic()
        self.inputs += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.read(content)
        except DOCUMENTED:
            self.refused += 1
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.find(f"{type(error).__name__} in {Path(where.filename).name}: {str(error)[:120]}", content)
        if (took := time.monotonic() - began) > SECONDS:
            self.find(f"took long: {took:.0f} s", content)
        if peak() - self.base > MEMORY:
            self.find("took much memory", content)
            self.base = peak()
        if self.forbidden:
            self.find(f"events: {sorted(set(self.forbidden))}", content)
            self.forbidden.clear()
        if self.inputs % 500 == 0:
            self.tell()

    def find(self, what: str, content: Any) -> None:
        """Keep a finding."""
        kind = what.partition(":")[0]
        if kind not in self.findings:
            self.findings[kind] = what
            kept = content if isinstance(content, bytes) else repr(content).encode()
            self.told.with_name(f"{self.told.stem}-{len(self.findings)}.bin").write_bytes(kept)
            self.tell()

    def tell(self) -> None:
        """Write what there is."""
        found = {
            "inputs": self.inputs, "refused": self.refused, "findings": list(self.findings.values()),
            "peak_mib": (peak() - self.base) // 2**20,
        }  # fmt: skip
        self.told.write_text(json.dumps(found))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fuzz(name: str, runs: int, seed: int, place: Path) -> None:
    """Give a reader inputs until there were so many; the process ends with it."""
    import atheris

    with atheris.instrument_imports(include=["anograd"]):
        pass
    corpus = place / "corpus"
    corpus.mkdir()
    for i, content in enumerate(globals()[name]()):
        (corpus / str(i)).write_bytes(content)
    read = reader(name, place)
    for path in sorted(corpus.iterdir()):  # what is imported on first use is not the input's doing
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(*DOCUMENTED):
                read(path.read_bytes())
    watch = Watch(read, place / "told.json")
    words = ["fuzz", str(corpus), f"-runs={runs}", f"-seed={seed + 1}", "-max_len=4096", "-rss_limit_mb=6000",
             f"-artifact_prefix={place}/", "-timeout=120"]  # fmt: skip

    def one(content: bytes) -> None:
        watch(content)
        if watch.inputs >= runs:
            watch.tell()

    whole = [path.read_bytes() for path in sorted(corpus.iterdir())]

    def near(content: bytes, size: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if draw.random() < 0.5:
            return atheris.Mutate(content, size)  # which wanders far from what any reader takes
        return change_bytes(draw.choice(whole), draw)[:size]

    atheris.Setup(words, one, custom_mutator=near)
    atheris.Fuzz()


# Stored models, with right checksums


def break_folders(runs: int, seed: int, place: Path) -> None:
    """Load models in which a few values of the manifest, or bytes of a file, were changed."""
    import polars
    import torch

    import anograd as ag
    from anograd import store

    torch.set_num_threads(1)
    frame = polars.DataFrame({"a": np.linspace(0, 1, 40), "b": ["x", "y"] * 20})
    images = np.random.default_rng(0).random((20, 1, 6, 6))
    models: list[Path] = []
    for kind in (ag.GradCon, ag.R2AD2, ag.GradNeighbours, ag.GradScoreTest, ag.GradNorm, ag.GradCon):
        rows = images if models and kind is ag.GradCon else frame
        models.append(place / f"{len(models)}")
        kind(epochs=1, random_state=0).fit(rows).save(models[-1])
        ag.load(models[-1]).anomaly_score(rows)
    draw = random.Random(seed)
    folder = place / "broken"

    def load(model: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(model, folder)
        listing = json.loads((folder / "manifest.json").read_text())
        if draw.random() < 0.6:
            for _ in range(draw.randint(1, 3)):
                change_value(listing, draw)
        else:
            path = folder / draw.choice(sorted(path.name for path in folder.iterdir()))
            path.write_bytes(change_bytes(path.read_bytes(), draw))
        if draw.random() < 0.95 and isinstance(listing.get("files"), dict):
            for name in set(listing["files"]) & {"tensors.safetensors", "table.skops"}:
                content = (folder / name).read_bytes()
                listing["files"][name] = {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "bytes": len(content),
                }
            listing["sha256"] = store._own_digest(listing)
            (folder / "manifest.json").write_text(json.dumps(listing))
        ag.load(folder)

    watch = Watch(load, place / "told.json")
    for _ in range(runs):
        watch(draw.choice(models))
    watch.tell()


ODD: list[Any] = [None, True, -1, 0, 1, 2, 10**9, 10**30, 1.5, -1e308, float("nan"), "", "x", "../x", "meta",
                  [], [[]], [0], [10**9, 10**9], {}, {"a": 1}, "os.system", [1] * 1000]  # fmt: skip


def change_value(listing: Any, draw: random.Random) -> None:
    """Change one value, somewhere in nested plain data."""
    places: list[tuple[Any, Any]] = []
    waiting = [listing]
    while waiting:
        node = waiting.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    if not places:
        return
    owner, key = draw.choice(places)
    odd = copy.deepcopy(draw.choice(ODD))
    if draw.random() < 0.2:
        del owner[key]
    elif draw.random() < 0.2 and isinstance(owner, dict):
        owner[draw.choice(["forward", "checkpoint", "progress", "__class__", "x"])] = odd
    else:
        owner[key] = odd


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """Change, cut out, double or append a few bytes."""
    found = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        at = draw.randrange(len(found) + 1)
        how = draw.randrange(5)
        if how == 0:
            found[at:at] = draw.randbytes(draw.randint(1, 8))
        elif how == 1:
            del found[at : at + draw.randint(1, 64)]
        elif how == 2:
            found = found[:at] if draw.random() < 0.1 else found
        elif at < len(found):
            found[at] = draw.randrange(256)
    return bytes(found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default=",".join(RUNS))
    options.add_argument("--keep", type=Path, help="a folder for the inputs of findings")
    options.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    names = given.only.split(",")
    if given.worker is not None:
        by_hand = {"folders": break_folders, "configs": configs}
        if names[0] in by_hand:  # what reads tables reserves far more than it takes
            resource.setrlimit(resource.RLIMIT_AS, (3 * MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        work = by_hand.get(names[0]) or partial(fuzz, names[0])
        work(given.runs, given.seed, given.worker)
        return
    bad = False
    for name in names:
        with tempfile.TemporaryDirectory(
            dir=Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        ) as place:
            runs = given.runs or RUNS[name]
            words = ["--only", name, "--runs", str(runs), "--seed", str(given.seed), "--worker", place]
            began = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, __file__, *words], capture_output=True, text=True, check=False
            )
            told = Path(place, "told.json")
            line = {
                "reader": name,
                **(json.loads(told.read_text()) if told.exists() else {"inputs": 0, "findings": []}),
            }
            if ended.returncode:
                line["findings"].append(f"the process ended with {ended.returncode}: {ended.stderr[-300:]}")
            bad |= bool(line["findings"])
            print(line, f"{time.perf_counter() - began:.0f} s", flush=True)
            if given.keep:
                shutil.copytree(
                    place, given.keep / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("corpus")
                )
            if given.runs is None:
                import record

                record.write("fuzz", {**line, "seed": given.seed})
    if bad:
        raise SystemExit("something was not refused as it should have been")


if __name__ == "__main__":
    main()
