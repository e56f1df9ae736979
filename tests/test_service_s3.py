"""Stored images in a bucket, on a real server that speaks S3 (moto)."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")
moto = pytest.importorskip("moto.server", reason="moto is not installed")

from eocodec.errors import EocodecError  # noqa: E402
from eocodec.service.images import Images, StoreError, Taken, identify  # noqa: E402

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1", "AWS_ENDPOINT_URL": ""}  # fmt: skip


def describe(data: bytes) -> dict[str, Any]:
    return {"width": 1, "height": len(data)}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server with an empty bucket; its `stop` takes it away."""
    import s3fs

    server = moto.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    with contextlib.suppress(FileExistsError):  # the servers of one process share their memory
        s3fs.S3FileSystem().mkdir("bucket")
    yield server
    with contextlib.suppress(Exception):
        server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_bucket_stores_what_a_folder_does(bucket: Any) -> None:
    images = Images("s3://bucket/images", describe)
    images.check()
    assert images.about("a") is None and images.read("a") is None and not images.remove("a")
    images.write("a", b"first", new=True)
    with pytest.raises(Taken):
        images.write("a", b"other", new=True)
    about = images.about("a")
    assert about is not None and about.tag == identify(b"first") and about.modified > 1e9
    assert Images("s3://bucket/images", describe).about("a") == about
    opened = images.open("a", about)
    assert opened is not None
    with opened:
        opened.seek(1)
        assert opened.read(3) == b"irs"
    images.write("a", b"second")
    newer = images.about("a")
    assert newer is not None and newer.tag == identify(b"second") and images.open("a", about) is None
    assert images.listed("", "", 5) == ([{"name": "a", "bytes": 6}], False)
    assert images.remove("a") and not images.remove("a") and images.about("a") is None


def test_one_of_many_writers_gets_a_new_name(bucket: Any) -> None:
    stores = [Images("s3://bucket/race", describe) for _ in range(4)]

    def write(k: int) -> bool:
        try:
            stores[k].write("race", bytes([k]), new=True)
        except Taken:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(write, range(4))) == 1


def test_a_bucket_that_goes_away_is_the_stores_fault(bucket: Any) -> None:
    images = Images("s3://bucket/gone", describe)
    images.write("a", b"first")
    bucket.stop()
    for attempt in (lambda: images.about("a"), lambda: images.read("a"), lambda: images.remove("a"), images.check,
                    lambda: images.write("a", b"x"), lambda: images.listed("", "", 5)):  # fmt: skip
        with pytest.raises(StoreError):
            attempt()


def test_a_bucket_that_is_removed_is_the_stores_fault(bucket: Any) -> None:
    import s3fs

    s3fs.S3FileSystem().mkdir("short-lived")
    images = Images("s3://short-lived/images", describe)
    images.check()
    s3fs.S3FileSystem().rmdir("short-lived")
    with pytest.raises(StoreError):
        images.check()


def test_a_server_that_is_not_there_is_one_sentence_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name, value in {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(EocodecError, match="cannot be used as a store") as caught:
        Images("s3://bucket/images", describe)
    assert "\n" not in str(caught.value) and os.environ["AWS_SECRET_ACCESS_KEY"] + "x" not in str(caught.value)
