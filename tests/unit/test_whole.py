"""Files and folders that are there whole or not at all, and what a kill leaves."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from anograd import whole
from anograd.whole import alone, clear, filled_whole, to_stdout, write_whole

fcntl = pytest.importorskip("fcntl")
STRAY = f".name.{'0' * 32}"


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    write_whole(path, b"earlier")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("anograd.whole.os.fsync", full)
    with pytest.raises(OSError, match=r"scores.csv' was not written, nothing is half written: No space left"):
        write_whole(path, b"later")
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_space_is_spoken_of_only_where_it_is_short(tmp_path, monkeypatch):
    for number, remedy in (
        (errno.ENOSPC, "; free some space or write elsewhere"),
        (errno.EACCES, "; write else"),
    ):

        def refuse(handle: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("anograd.whole.os.fsync", refuse)
        with pytest.raises(OSError, match=os.strerror(number) + remedy):
            write_whole(tmp_path / "x", b"")


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "real" / "scores.csv")
    write_whole(link, b"1")
    assert link.is_symlink()
    assert (tmp_path / "real" / "scores.csv").read_bytes() == b"1"


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no such device on this system")
def test_a_device_is_written_to_and_not_replaced():
    with pytest.raises(OSError, match="'/dev/full' was not written"):
        write_whole("/dev/full", b"1")
    assert Path("/dev/full").is_char_device()


def test_who_writes_there_is_alone_until_the_end(tmp_path):
    said = pytest.raises(OSError, match=r"another run writes to '.*model': wait for")
    with alone(tmp_path / "model"), said, alone(tmp_path / "model"):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []
    with alone(tmp_path / "model"), alone(tmp_path / "other"):
        pass


def test_stdout_gets_what_a_file_would_hold_in_any_locale(monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
    to_stdout("größe".encode())
    assert out.getvalue() == "größe".encode()
    monkeypatch.setattr(sys, "stdout", text := io.StringIO())
    to_stdout("größe".encode())
    assert text.getvalue() == "größe"


@pytest.mark.parametrize("step", [True, False], ids=["in one step", "in two"])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, step):
    if not step:
        monkeypatch.setattr(whole, "_exchanged", lambda one, other: False)
    target = tmp_path / "deep" / "name"
    for content in ("one", "two"):
        with filled_whole(target) as fresh:
            (fresh / "file").write_text(content)
        assert (target / "file").read_text() == content
        assert os.listdir(target.parent) == ["name"]


def test_the_folder_is_there_at_every_moment(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    if not whole._exchanged(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this disk cannot exchange two names")
    target = tmp_path / "name"
    code = (
        "import sys; from pathlib import Path; from anograd.whole import filled_whole\n"
        "while True:\n with filled_whole(Path(sys.argv[1])) as f: (f / 'file').write_text('x')"
    )
    with filled_whole(target) as fresh:
        (fresh / "file").write_text("x")
    source = str(Path(whole.__file__).parents[1])
    with subprocess.Popen([sys.executable, "-c", code, str(target)], env={"PYTHONPATH": source}) as writer:
        while not list(tmp_path.glob(".name.*")):
            assert writer.poll() is None
        seen = [(target / "file").exists() for _ in range(20_000)]
        writer.send_signal(signal.SIGKILL)
    assert all(seen)
    clear(target)
    assert not list(tmp_path.glob(".name.*"))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_kill_left_is_cleared_and_what_is_being_written_is_not(tmp_path, kind):
    target, stray = tmp_path / "name", tmp_path / STRAY
    other = tmp_path / ".name.of.mine"
    other.touch()
    if kind == "file":
        stray.write_text("half")
    else:
        stray.mkdir()
        (stray / "half").touch()
    handle = os.open(stray, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as its writer does
    write_whole(target, b"1")
    assert stray.exists()
    os.close(handle)  # as the system does for a process that was killed
    write_whole(target, b"2")
    assert sorted(tmp_path.iterdir()) == [other, target]


def test_a_folder_that_lost_its_name_gets_it_back(tmp_path):
    target, old = tmp_path / "name", tmp_path / (STRAY + ".old")
    old.mkdir()
    (old / "file").write_text("earlier")
    (tmp_path / STRAY).mkdir()  # killed between the two renames of a disk that cannot exchange
    clear(target)
    assert (target / "file").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["name"]
    target.rename(old)
    target.mkdir()
    clear(target)  # killed after them
    assert os.listdir(tmp_path) == ["name"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_private_stays_so_when_it_is_replaced(tmp_path):
    path, link = tmp_path / "report.html", tmp_path / "link.html"
    write_whole(path, b"earlier")
    path.chmod(0o600)
    link.symlink_to(path)
    write_whole(link, b"now")
    assert path.read_bytes() == b"now"
    assert mode(path) == 0o600
    seen = []
    with whole.written_whole(path) as file:
        file.write(b"half of it")
        file.flush()
        seen += [mode(one) for one in tmp_path.iterdir() if one.name.startswith(".")]
    assert seen == [0o600]


def test_a_private_folder_stays_so_and_a_new_one_goes_by_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with filled_whole(tmp_path / "model") as fresh:
            assert mode(fresh) == 0o700
            (fresh / "weights").write_bytes(b"1")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "model"), mode(tmp_path / "model" / "weights")) == (0o750, 0o640)
    (tmp_path / "model").chmod(0o700)
    (tmp_path / "model" / "weights").chmod(0o600)
    with filled_whole(tmp_path / "model") as fresh:
        (fresh / "weights").write_bytes(b"2")
        (fresh / "table").write_bytes(b"new")
    assert (tmp_path / "model" / "weights").read_bytes() == b"2"
    assert mode(tmp_path / "model") == 0o700
    assert mode(tmp_path / "model" / "weights") == 0o600
