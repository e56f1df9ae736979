"""Files are written whole or not at all."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import environment

from eocodec import files
from eocodec.files import atomic_file, atomic_write, make_folder


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_by_all_of_the_new_content(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old and longer")
    with atomic_file(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old and longer"
        (partial,) = [n for n in _names(tmp_path) if n != "x"]
        assert re.fullmatch(files.TEMPORARY, partial)
    assert target.read_bytes() == b"new" and _names(tmp_path) == ["x"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), SystemExit(1), OSError(28, "full")], ids=repr)
def test_whatever_ends_the_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with pytest.raises(type(failure)), atomic_file(target) as file:
        file.write(b"half")
        raise failure
    assert target.read_bytes() == b"old" and _names(tmp_path) == ["x"]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_an_interrupt_at_any_step_leaves_nothing_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "x"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, b"new")
    monkeypatch.undo()
    assert target.read_bytes() == b"old" and _names(tmp_path) == ["x"]


WRITER = """
import signal, sys
from eocodec.files import atomic_file

signal.signal(signal.SIGTERM, signal.default_int_handler)
with atomic_file("x") as file:
    file.write(b"half")
    file.flush()
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_that_the_program_handles_leaves_nothing_unfinished(tmp_path: Path, sign: signal.Signals) -> None:
    (tmp_path / "x").write_bytes(b"old")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env=environment(),
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"open\n" and len(_names(tmp_path)) == 2
    process.send_signal(sign)
    assert process.wait(30) != 0
    process.stdin.close()
    process.stdout.close()
    assert _names(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"old"


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def noted(name: str, function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            steps.append(name)
            function(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    atomic_write(tmp_path / "x", b"new")
    assert steps == ["fsync", "replace"]


def test_names_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 240 + ".eoc")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "x", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755], ids=oct)
def test_a_file_that_exists_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    target.chmod(mode)
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new" and stat.S_IMODE(target.stat().st_mode) == mode


def _given(monkeypatch: pytest.MonkeyPatch, path: Path, allowed: set[int]) -> list[tuple[int, int]]:
    """The owners and groups that a file gets which replaces one of another user, where those in `allowed` may be."""
    was, given = os.stat(path), []
    fields = list(was)
    fields[stat.ST_UID], fields[stat.ST_GID] = was.st_uid + 1, was.st_gid + 1

    def chown(_: Path, owner: int, group: int) -> None:
        if owner not in allowed:
            raise PermissionError(1, "Operation not permitted")
        given.append((owner, group))

    look = os.stat
    monkeypatch.setattr(os, "stat", lambda p, **k: os.stat_result(fields) if Path(p) == path else look(p, **k))
    monkeypatch.setattr(os, "chown", chown)
    atomic_write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"new"
    return given


def test_a_file_that_exists_keeps_its_owner_and_group_where_they_may_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    owner, group = target.stat().st_uid + 1, target.stat().st_gid + 1
    assert _given(monkeypatch, target, {owner}) == [(owner, group)]
    assert _given(monkeypatch, target, {-1}) == [(-1, group)]
    assert _given(monkeypatch, target, set()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to be root")
def test_root_writes_over_a_users_file_and_the_user_can_still_read_it(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    os.chown(target, 65534, 65533)
    target.chmod(0o600)
    atomic_write(target, b"new")
    now = target.stat()
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (65534, 65533, 0o600)


def test_the_umask_of_the_process_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise AssertionError("other threads would create files with this umask")

    monkeypatch.setattr(os, "umask", refuse)
    threads = [threading.Thread(target=atomic_write, args=(tmp_path / str(k % 3), b"%d" % k)) for k in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _names(tmp_path) == ["0", "1", "2"]
    assert all(int((tmp_path / str(k)).read_bytes()) % 3 == k for k in range(3))


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_bytes(b"old")
    (tmp_path / "absolute").symlink_to(tmp_path / "there" / "x")
    (tmp_path / "relative").symlink_to("there/x")
    (tmp_path / "twice").symlink_to("relative")
    (tmp_path / "dangling").symlink_to("there/new")
    for k, name in enumerate(("absolute", "relative", "twice")):
        atomic_write(tmp_path / name, b"%d" % k)
        assert (tmp_path / name).is_symlink() and (tmp_path / "there" / "x").read_bytes() == b"%d" % k
    atomic_write(tmp_path / "dangling", b"new", folder=tmp_path)
    assert (tmp_path / "dangling").is_symlink() and (tmp_path / "there" / "new").read_bytes() == b"new"
    assert _names(tmp_path / "there") == ["new", "x"]
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="symbolic links"):
        atomic_write(tmp_path / "circle", b"new")


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    atomic_write(pipe, b"through")
    reader.join(30)
    assert got == [b"through"] and pipe.is_fifo() and _names(tmp_path) == ["pipe"]


def test_a_device_is_written_to_and_stays_a_device() -> None:
    atomic_write("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout")
def test_an_open_descriptor_is_written_to_even_if_it_is_a_file(tmp_path: Path) -> None:
    code = "from eocodec.files import atomic_write; atomic_write('/dev/stdout', b'new')"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, env=environment())
        assert os.fstat(out.fileno()).st_size == 3, "the file that was open is the one that was written"
    assert _names(tmp_path) == ["out"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        atomic_write(tmp_path, b"new")


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "missing" / "x", b"new")
    assert caught.value.filename == str(tmp_path / "missing" / "x"), "not the unfinished file's name"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_errors_name_the_file_that_was_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*names: object) -> None:
        raise OSError(28, "No space left on device", *[str(n) for n in names if isinstance(n, Path)][:1])

    if step != "write":
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space") as caught, atomic_file(tmp_path / "x") as file:
        file.write(b"new")
        if step == "write":
            fail()
    assert caught.value.filename == str(tmp_path / "x") and caught.value.filename2 is None
    with pytest.raises(OSError, match="another") as caught, atomic_file(tmp_path / "x"):
        raise OSError(5, "another", "source")
    assert caught.value.filename == "source"


@pytest.mark.slow
def test_a_write_that_fails_inside_a_library_is_told_as_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes checkpoints")

    def full(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught, atomic_file(tmp_path / "x") as file:
        file.write = full  # type: ignore[method-assign]
        torch.save({"a": torch.zeros(1000)}, file)
    assert caught.value.filename == str(tmp_path / "x") and _names(tmp_path) == []
    with pytest.raises(RuntimeError, match="another"), atomic_file(tmp_path / "x"):
        raise RuntimeError("another")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_errors_name_the_device_that_is_full() -> None:
    with pytest.raises(OSError, match="No space") as caught:
        atomic_write("/dev/full", b"new")
    assert caught.value.filename == "/dev/full"


def test_unfinished_files_can_be_kept_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    with atomic_file(tmp_path / "x", folder=tmp_path / "unfinished") as file:
        file.write(b"new")
        assert _names(tmp_path) == ["unfinished"] and len(_names(tmp_path / "unfinished")) == 1
    assert _names(tmp_path) == ["unfinished", "x"] and _names(tmp_path / "unfinished") == []


def test_what_a_link_leads_to_may_lie_in_another_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are not renamed from one to another, so the unfinished one lies beside the target, wherever it should."""
    replace = os.replace

    def within(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    link = tmp_path / "here" / "link"
    link.symlink_to(tmp_path / "there" / "x")
    monkeypatch.setattr(os, "replace", within)
    atomic_write(link, b"x", tmp_path / "here")
    assert link.is_symlink() and (tmp_path / "there" / "x").read_bytes() == b"x"
    assert _names(tmp_path / "here") == ["link"] and _names(tmp_path / "there") == ["x"]


def test_a_folder_that_is_made_is_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "new" / "folder")
        assert _names(tmp_path / "new" / "folder") == []


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_new_file_replaces_none_that_appears_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def none(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", none)
    target = tmp_path / "x"
    with pytest.raises(FileExistsError) as raised, atomic_file(target, new=True) as file:
        file.write(b"new")
        target.write_bytes(b"precious")
    assert raised.value.filename == str(target)
    assert target.read_bytes() == b"precious" and _names(tmp_path) == ["x"]
    with pytest.raises(FileExistsError):
        atomic_write(target, b"new", new=True)
    (tmp_path / "link").symlink_to("y")
    atomic_write(tmp_path / "link", b"new", new=True)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "y").read_bytes() == b"new" and _names(tmp_path) == ["link", "x", "y"]
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("step", ["link", "replace"])
def test_an_interrupt_at_the_last_step_of_a_new_file_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def none(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", none)
    monkeypatch.setattr(os, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "x", b"new", new=True)
    assert not _names(tmp_path)
