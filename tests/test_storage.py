"""Stores: folders here and elsewhere behave alike, and a name never stands for a part of a file."""

import pickle
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec", reason="stores need fsspec")

from eocodec.errors import EocodecError  # noqa: E402
from eocodec.storage import PARTIAL_NAME, Store  # noqa: E402


class Remote(fsspec.get_filesystem_class("file")):  # type: ignore[misc]
    """A filesystem that is no object store and not this machine's: it can be cut off while it writes."""

    protocol = "cuttable"
    cut = False
    written: list[str] = []  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        Remote.written.append(path)
        Path(path).write_bytes(value[: len(value) // 2] if Remote.cut else value)
        if Remote.cut:
            raise ConnectionError("cut off")


@pytest.fixture(params=["local", "memory", "cuttable"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    fsspec.register_implementation("cuttable", Remote, clobber=True)
    Remote.cut, Remote.written = False, []
    memory = f"memory://{tmp_path.name}/{request.node.callspec.id}"
    urls = {"local": str(tmp_path / "s"), "memory": memory, "cuttable": f"cuttable://{tmp_path}/s"}
    yield Store.at(urls[request.param])
    fsspec.filesystem("memory").store.clear()


def test_what_was_written_is_read_listed_and_removed(store: Store) -> None:
    store.make()
    assert store.sizes("") == {} and not store.exists("a/b")
    with pytest.raises(FileNotFoundError):
        store.read("a/b")
    store.write("a/b", b"old")
    store.write("a/b", b"newer")
    assert store.read("a/b") == b"newer" and store.exists("a/b") and store.sizes("a") == {"b": 5}
    assert pickle.loads(pickle.dumps(store)).read("a/b") == b"newer"
    store.remove("a/b")
    assert not store.exists("a/b")
    with pytest.raises(FileNotFoundError):
        store.remove("a/b")


def test_another_folder_of_the_same_filesystem(store: Store) -> None:
    store.write("a/b", b"content")
    inner = store.moved(store.path("a"))
    assert inner.read("b") == b"content" and inner.url == store.where("a") and inner.is_local == store.is_local


@pytest.mark.parametrize("partial", ["", "unfinished"])
def test_a_connection_that_is_cut_leaves_the_old_file_and_no_half_one(tmp_path: Path, partial: str) -> None:
    fsspec.register_implementation("cuttable", Remote, clobber=True)
    Remote.cut, Remote.written = False, []
    store = Store.at(f"cuttable://{tmp_path}/s", partial)
    store.write("b", b"old")
    Remote.cut = True
    with pytest.raises(ConnectionError):
        store.write("b", b"new and longer")
    assert store.read("b") == b"old" and [p.name for p in (tmp_path / "s").rglob("*") if p.is_file()] == ["b"]
    assert all(Path(p).parent == tmp_path / "s" / partial and Path(p).name != "b" for p in Remote.written)


def test_only_files_of_its_own_are_cleared(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    own = ["0" * 32, ".0123456789abcdef.partial"]
    for name in (*own, "thesis.partial", "0" * 31):
        store.write(f"p/{name}", b"x")
    store.clear("p", PARTIAL_NAME)
    assert sorted(store.sizes("p")) == ["0" * 31, "thesis.partial"]
    for name in store.sizes("p"):
        store.remove(f"p/{name}")
    store.clear("p", PARTIAL_NAME)
    assert not (tmp_path / "p").exists()
    store.clear("p", PARTIAL_NAME)  # nothing there is nothing to do


def test_unknown_protocols_are_one_sentence() -> None:
    with pytest.raises(EocodecError, match="nope://x: cannot be opened"):
        Store.at("nope://x")


def test_a_file_that_was_created_is_alone(store: Store, tmp_path: Path) -> None:
    store.make()
    store.create("a", b"")
    assert store.sizes("") == {"a": 0} and store.read("a") == b""
    with pytest.raises(FileExistsError):
        store.create("a", b"other")
    assert store.sizes("") == {"a": 0}


class Refusing(Remote):
    """An object store in which somebody else has just written what is to be new."""

    protocol = ("refusing", "s3")
    said = ""

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        raise OSError(Refusing.said)


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("An error occurred (PreconditionFailed) when calling the PutObject operation", True),
        ("[Errno 22] At least one of the pre-conditions you specified did not hold", True),
        ("An error occurred (SlowDown)", False),
    ],
)
def test_an_object_store_says_in_several_ways_that_a_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, taken: bool
) -> None:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    monkeypatch.setattr(Refusing, "said", said)
    with pytest.raises(OSError) as caught:
        Store.at(f"refusing://{tmp_path}").create("a", b"x")
    assert isinstance(caught.value, FileExistsError) is taken


@pytest.mark.parametrize("modified", [datetime(2020, 1, 1), "2020-01-01", "2019-12-31T19:00:00-05:00"])
def test_a_time_without_a_zone_is_universal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modified: datetime | str
) -> None:
    fsspec.register_implementation("cuttable", Remote, clobber=True)
    found = {"type": "file", "size": 1, "LastModified": modified}
    monkeypatch.setattr(Remote, "info", lambda self, path, **_: found)
    try:
        with monkeypatch.context() as zone:
            zone.setenv("TZ", "America/New_York")
            time.tzset()
            state = Store.at(f"cuttable://{tmp_path}").state("a")
    finally:
        time.tzset()
    assert state is not None and state.modified == 1577836800


def test_a_folder_of_a_store_elsewhere_is_no_file(tmp_path: Path) -> None:
    store = Store.at(f"memory://{tmp_path.name}/folders")
    store.write("a/b", b"content")
    assert store.state("a") is None and store.state("a/b") is not None
    store.remove("a/b")
