"""What the HTTP service promises: the library's own results, limits that hold, and an end that loses nothing."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, VECTORS, Runner, wait_until
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

from servers import Server, serving  # noqa: E402

import eocodec  # noqa: E402
from eocodec.codec import compress_picture  # noqa: E402
from eocodec.format import parse  # noqa: E402
from eocodec.image import read_picture  # noqa: E402
from eocodec.lab.paths import editing  # noqa: E402
from eocodec.remarks import CLEANED, ROUNDED  # noqa: E402
from eocodec.workers import STILLBORN  # noqa: E402

pytestmark = pytest.mark.slow

PNG = (SAMPLES / "chelsea.png").read_bytes()
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    with serving("--workers", 2, "--store", store) as s:
        yield s


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as c:
        yield c


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with small limits."""
    limits = (
        "--store",
        tmp_path_factory.mktemp("strict"),
        "--max-body",
        1,
        "--max-pixels",
        300_000,
        "--timeout",
        60,
        "--upload-timeout",
        1.5,
    )
    with serving("--workers", 1, "--queue", 1, *limits) as s:
        yield s


def small(width: int = 96, height: int = 64, left: int = 100) -> bytes:
    out = io.BytesIO()
    Image.open(SAMPLES / "chelsea.png").crop((left, 50, left + width, 50 + height)).save(out, "PNG")
    return out.getvalue()


def detail(response: "httpx.Response") -> str:
    """The sentence of an error, which must be one."""
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["detail"]
    sentence = response.json()["detail"]
    assert isinstance(sentence, str) and sentence and "\n" not in sentence and "Traceback" not in sentence
    return sentence


def test_compressing_over_http_gives_the_bytes_of_the_library(client: httpx.Client) -> None:
    picture = read_picture(SAMPLES / "chelsea.png")
    expected = compress_picture(picture, 48, measure=True)
    answer = client.post("/v1/compress", params={"rate": 48, "measure": True}, content=PNG)
    assert answer.status_code == 200 and answer.content == expected.data
    assert answer.headers["content-type"] == "image/x-eoc"
    assert float(answer.headers["x-eocodec-bpp"]) == pytest.approx(expected.bits_per_pixel, rel=1e-4)
    assert float(answer.headers["x-eocodec-psnr"]) == pytest.approx(expected.psnr, abs=0.001)
    assert answer.headers["x-eocodec-bytes"] == str(len(expected.data))
    form = client.post("/v1/compress", files={"image": ("chelsea.png", PNG)}, data={"rate": "48"})
    assert form.content == expected.data


@pytest.mark.parametrize(
    "options", [{"bpp": 0.4}, {"bytes": 900}, {"psnr": 33}, {"progressive": True}, {"lossless": True}, {"denoise": 12}]
)
def test_every_target_of_the_library_is_a_parameter(client: httpx.Client, options: dict[str, float]) -> None:
    body = small()
    names = {"bytes": "max_bytes"}
    expected = eocodec.compress(Image.open(io.BytesIO(body)), **{names.get(k, k): v for k, v in options.items()})
    assert client.post("/v1/compress", params=options, content=body).content == expected


def test_decompressing_gives_the_pixels_of_the_library_in_the_accepted_type(client: httpx.Client) -> None:
    for name in ("colour", "alpha", "grey", "embedded", "lossless", "face-tiny"):
        data = (VECTORS / f"{name}.eoc").read_bytes()
        expected = eocodec.decompress(data)
        for accept, kind in (("", "PNG"), ("image/webp", "WEBP"), ("text/html, image/tiff;q=0.9", "TIFF")):
            answer = client.post("/v1/decompress", content=data, headers={"accept": accept} if accept else {})
            assert answer.status_code == 200, answer.text
            image = Image.open(io.BytesIO(answer.content))
            assert image.format == kind
            assert np.array_equal(np.asarray(image.convert("RGBA" if expected.shape[2] == 4 else "RGB")), expected)
    prefix = (VECTORS / "segments.eoc").read_bytes()[:3000]
    assert client.post("/v1/decompress", content=prefix).headers["x-eocodec-state"] == "prefix"
    refused = client.post("/v1/decompress", content=prefix, headers={"accept": "application/pdf"})
    assert refused.status_code == 406 and "image/png" in detail(refused)


def test_denoising_over_http_gives_the_pixels_of_the_library(client: httpx.Client) -> None:
    clean = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[40:140, 60:220]
    noisy = np.clip(clean + np.random.default_rng(1).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "PNG")
    answer = client.post("/v1/denoise", params={"sigma": 20, "method": "net"}, content=out.getvalue())
    got = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(got, eocodec.denoise(noisy, 20, method="net"))
    assert answer.headers["x-eocodec-method"] == "net"
    estimated = client.post("/v1/denoise", content=out.getvalue())
    assert float(estimated.headers["x-eocodec-sigma"]) == pytest.approx(20, rel=0.2)


def test_faces_change_along_paths_and_towards_another(client: httpx.Client) -> None:
    paths, model = editing.load_paths("face64"), eocodec.load_model("face64")
    names = client.get("/v1/models").json()["models"][1]["paths"]
    assert names == paths.manifest.names
    face = np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))
    files = {tiny: eocodec.compress(face, 400, model="face64", tiny=tiny) for tiny in (False, True)}
    for data in files.values():
        before = eocodec.decompress(data)
        wanted = editing.edit(before, {"light": 1.0, "tint": -0.5}, paths, model)
        asked = {"paths": "light=+1;tint=-0.5"}
        answer = client.post("/v1/edit", params=asked, content=data)
        assert answer.status_code == 200, answer.text
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), wanted)
        file = client.post("/v1/edit", params={**asked, "format": "eoc"}, content=data).content
        assert file == eocodec.compress(wanted, model="face64", max_bytes=len(data), tiny=len(data) < len(files[False]))
        still = client.post("/v1/edit", params={"paths": "light=0", "format": "eoc"}, content=data)
        assert still.content == data and still.headers["x-eocodec-state"] == "complete"
        both = [("a", ("a.eoc", data)), ("b", ("b.eoc", files[False]))]
        answer = client.post("/v1/edit", files=both, data={"share": "0.25"})
        (between,) = editing.blend(before, eocodec.decompress(files[False]), [0.25], model)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), between)
    for options, sentence in (
        ({"params": {"paths": "smile=1"}, "content": data}, "no path is called smile"),
        ({"params": {"paths": "light=9"}, "content": data}, "amounts from -5 to 5"),
        ({"params": {"paths": "light"}, "content": data}, "paths"),
        ({"params": {"share": 0.5}, "content": data}, "second face"),
        ({"params": {"paths": "light=1"}, "content": small()}, "no paths for pictures of this size"),
        ({"params": {"paths": "light=1"}, "content": eocodec.compress(face)}, "made with photo, not with face64"),
        ({"content": data}, "give paths"),
        ({"params": {"format": "eoc"}, "files": both[:1]}, "give paths"),
    ):
        refused = client.post("/v1/edit", **options)
        assert refused.status_code == 422 and sentence in detail(refused)
    three = [(name, ("x.eoc", data)) for name in "abc"]
    assert client.post("/v1/edit", files=three).status_code == 400
    out = io.BytesIO()
    Image.fromarray(face).save(out, "PNG")
    moved = client.post("/v1/edit", params={"paths": "light=1", "format": "eoc"}, content=out.getvalue()).content
    assert moved == eocodec.compress(editing.edit(face, {"light": 1.0}, paths, model), model="face64")
    cut = client.post("/v1/edit", params={"paths": "light=1"}, content=files[False][:16])
    assert cut.status_code == 200 and cut.headers["x-eocodec-state"] == "prefix"


def test_info_and_models_say_what_the_library_says(client: httpx.Client) -> None:
    from eocodec.coding.describe import describe

    for name in ("segments", "embedded-prefix", "lossless", "face", "face-tiny"):
        data = (VECTORS / f"{name}.eoc").read_bytes()
        assert client.post("/v1/info", content=data).json() == describe(data)
    models = client.get("/v1/models").json()["models"]
    assert [m["name"] for m in models] == ["photo", "face64"] and models[0]["default"]
    for m in models:
        assert m["id"] == eocodec.load_model(m["name"]).id.hex()
        spectrum = client.get(f"/v1/models/{m['name']}/spectrum").json()
        assert spectrum["block"] == m["block"] and len(spectrum["rank"]) == len(spectrum["entropy"]) > 20
        assert spectrum["rank"] == sorted(spectrum["rank"])
        assert spectrum["entropy"] == sorted(spectrum["entropy"], reverse=True)
        assert m["default_rate"] == min(96, m["block"])
    assert client.get("/v1/models/none/spectrum").status_code == 404


def test_the_specification_describes_every_route(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    wanted = {
        "/v1/compress",
        "/v1/decompress",
        "/v1/denoise",
        "/v1/edit",
        "/v1/info",
        "/v1/models",
        "/v1/images/{name}",
        "/v1/open/{identity}/estimate",
        "/v1/tasks/{identity}",
    }
    assert wanted | {"/healthz", "/readyz", "/metrics"} <= set(paths)
    names = {p["name"] for p in paths["/v1/compress"]["post"]["parameters"]}
    assert {"rate", "bpp", "bytes", "psnr", "model", "denoise", "progressive", "lossless"} <= names
    put = paths["/v1/images/{name}"]["put"]
    assert {"Location", "Preference-Applied", "Retry-After"} == set(put["responses"]["202"]["headers"])
    assert "prefer" in {p["name"] for p in put["parameters"] if p["in"] == "header"}
    for path in ("/v1/compress", "/v1/decompress", "/v1/denoise", "/v1/info"):
        assert "multipart/form-data" in paths[path]["post"]["requestBody"]["content"]
        assert "503" in paths[path]["post"]["responses"]


def test_stored_images_are_served_in_prefixes_without_encoding(client: httpx.Client) -> None:
    put = client.put("/v1/images/cat", content=PNG)
    assert put.status_code == 201 and put.headers["location"] == "/v1/images/cat"
    got = client.get("/v1/images/cat")
    whole, tag = got.content, got.headers["etag"]
    assert parse(whole).header.embedded and tag == put.headers["etag"]
    assert got.headers["accept-ranges"] == "bytes" and "max-age" in got.headers["cache-control"]
    assert client.get("/v1/images/cat", params={"bytes": 4000}).content == eocodec.truncate(whole, max_bytes=4000)
    for _ in range(2):  # the second time, how long it is is remembered
        part = client.get("/v1/images/cat", params={"rate": 24})
        assert part.content == eocodec.truncate(whole, rate=24)
    assert part.headers["etag"] != tag and part.headers["etag"] == client.get(
        "/v1/images/cat", params={"bytes": len(part.content)}
    ).headers["etag"]  # fmt: skip
    assert client.get("/v1/images/cat", params={"bytes": 10**9}).headers["etag"] == tag
    picture = Image.open(io.BytesIO(client.get("/v1/images/cat?rate=24", headers={"accept": "image/*"}).content))
    assert np.array_equal(np.asarray(picture), eocodec.decompress(part.content))


def test_ranges_and_tags_work_as_http_says(client: httpx.Client) -> None:
    data = (VECTORS / "segments.eoc").read_bytes()
    assert client.put("/v1/images/a.b-c_1", content=data).status_code in (200, 201)
    url = "/v1/images/a.b-c_1"
    tag = client.get(url).headers["etag"]
    for header, first, last in (("0-99", 0, 99), ("100-", 100, len(data) - 1), ("-50", len(data) - 50, len(data) - 1)):
        part = client.get(url, headers={"range": f"bytes={header}"})
        assert part.status_code == 206 and part.content == data[first : last + 1]
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"
    assert client.get(url, headers={"range": f"bytes={len(data)}-"}).status_code == 416
    assert client.get(url, headers={"range": "bytes=5-2"}).status_code == 200
    assert client.get(url, headers={"range": "bytes=0-1", "if-range": '"other"'}).content == data
    unchanged = client.get(url, headers={"if-none-match": f'"x", {tag}'})
    assert unchanged.status_code == 304 and not unchanged.content and unchanged.headers["etag"] == tag
    head = client.head(url)
    assert head.headers["content-length"] == str(len(data)) and not head.content
    assert client.put(url, content=data, headers={"if-none-match": "*"}).status_code == 412
    assert client.put(url, content=data, headers={"if-match": '"other"'}).status_code == 412
    assert client.put(url, content=data, headers={"if-match": tag}).status_code == 200
    assert client.delete(url, headers={"if-match": f"W/{tag}"}).status_code == 412
    assert client.delete(url, headers={"if-match": '"other"'}).status_code == 412
    assert client.get(url).status_code == 200
    assert client.delete(url, headers={"if-match": tag}).status_code == 204
    assert client.delete(url, headers={"if-match": tag}).status_code == 412
    assert client.delete(url).status_code == 404 and client.get(url).status_code == 404


def test_only_whole_files_and_plain_names_are_stored(client: httpx.Client, server: Server) -> None:
    data = (VECTORS / "segments.eoc").read_bytes()
    damaged = bytearray(data)
    damaged[3000] ^= 1
    assert client.put("/v1/images/x", content=data[:3000]).status_code == 422
    assert client.put("/v1/images/x", content=bytes(damaged)).status_code == 422
    assert client.get("/v1/images/x").status_code == 404
    for name in ("..", ".hidden", "a%2Fb", "a%5Cb", "%2e%2e%2fetc", "x" * 129, "ü", "a b"):
        assert client.put(f"/v1/images/{name}", content=data).status_code in (404, 405, 422), name


def test_wrong_parameters_and_bodies_are_one_sentence_and_4xx(client: httpx.Client) -> None:
    for query in ("rate=0", "rate=nan", "rate=769", "bpp=-1", "bpp=1&rate=3", "model=../x", "model=none", "foo=1",
                  "denoise=loud", "denoise=999", "bytes=3", "psnr=inf", "lossless=true&rate=3"):  # fmt: skip
        answer = client.post(f"/v1/compress?{query}", content=small())
        assert answer.status_code == 422, query
        detail(answer)
    assert client.post("/v1/compress", content=b"").status_code == 422
    assert client.post("/v1/compress", content=b"no picture at all").status_code == 415
    assert client.post("/v1/compress", content=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").status_code == 415
    assert client.post("/v1/compress", content=PNG[:5000]).status_code == 422
    assert client.post("/v1/decompress", content=PNG).status_code == 415
    assert client.post("/v1/decompress", content=b"EOC\x01").status_code == 422
    assert client.post("/v1/info", content=b"EOC\x02" + bytes(20)).status_code == 422
    assert client.post("/v1/compress", content=b"x", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert client.post("/v1/compress", data={"rate": "4"}, files={"other": b"x"}).status_code == 415
    damaged = bytearray((VECTORS / "segments.eoc").read_bytes())
    damaged[2000] ^= 8
    assert "checksum" in detail(client.post("/v1/decompress", content=bytes(damaged)))
    saved = client.post("/v1/decompress?salvage=true", content=bytes(damaged))
    assert saved.status_code == 200 and saved.headers["x-eocodec-state"] == "damaged"


def warned(response: "httpx.Response") -> list[str]:
    """The sentences that an answer comes with."""
    value = response.headers.get("x-eocodec-warnings", "[]")
    assert response.is_success and value.isascii()
    return list(json.loads(value))


def pages(kind: str) -> bytes:
    """Three pictures in one file."""
    out, first = io.BytesIO(), Image.open(io.BytesIO(small()))
    first.save(out, kind, save_all=True, append_images=[first.rotate(90), first.rotate(180)])
    return out.getvalue()


def sixteen() -> tuple[bytes, np.ndarray]:
    """A grey PNG file of 16 bits, and its values."""
    grey = np.asarray(Image.open(io.BytesIO(small())).convert("L"))
    words, out = grey.astype(np.uint16) * 256 + np.arange(grey.shape[1], dtype=np.uint16), io.BytesIO()
    Image.fromarray(words).save(out, "PNG")
    return out.getvalue(), words


FRAMES = "only frame 0 of its 3 is read"


def test_the_service_says_what_the_command_says(client: httpx.Client) -> None:
    assert warned(client.post("/v1/compress", content=small(), params={"rate": 20})) == []
    tiff, (deep, _) = pages("TIFF"), sixteen()
    for options in ({"rate": 20}, {"lossless": True}):
        assert warned(client.post("/v1/compress", content=tiff, params=options)) == [FRAMES]
    assert warned(client.post("/v1/compress", content=deep, params={"rate": 20})) == [ROUNDED]
    assert warned(client.post("/v1/denoise", content=deep, params={"sigma": 5})) == [CLEANED]
    assert FRAMES in warned(client.post("/v1/denoise", content=pages("WEBP"), params={"sigma": 5}))
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(small())).save(jpeg, "JPEG")
    cut = jpeg.getvalue()[:-2]
    said = read_picture(io.BytesIO(cut)).notes
    assert said and warned(client.post("/v1/compress", content=cut, params={"rate": 20}))[: len(said)] == list(said)
    alpha = (VECTORS / "alpha.eoc").read_bytes()
    lost = "its transparency is lost, which .jpg cannot hold"
    assert warned(client.post("/v1/decompress", content=alpha, headers={"Accept": "image/jpeg"})) == [lost]
    assert warned(client.post("/v1/decompress", content=alpha, headers={"Accept": "image/png"})) == []
    opened = client.post("/v1/open", content=tiff).json()["id"]
    assert warned(client.get(f"/v1/open/{opened}/file", params={"rate": 20})) == [FRAMES]
    flat, options = io.BytesIO(), {"progressive": True, "bytes": 2000}
    Image.new("RGB", (64, 48), (200, 30, 90)).save(flat, "PNG")
    opened = client.post("/v1/open", content=flat.getvalue()).json()["id"]
    said = warned(client.post("/v1/compress", content=flat.getvalue(), params=options))
    assert "no more than" in said[0]
    assert warned(client.get(f"/v1/open/{opened}/file", params=options)) == said


def test_what_is_said_of_stored_images_is_in_json_and_headers(client: httpx.Client) -> None:
    put = client.put("/v1/images/said", content=pages("TIFF"), params={"progressive": False, "rate": 200})
    assert warned(put) == put.json()["warnings"] == [FRAMES]
    later = client.put("/v1/images/said", content=pages("TIFF"), headers={"Prefer": "respond-async"})
    while (task := client.get(later.headers["location"]).json())["state"] == "pending":
        time.sleep(0.05)
    assert task["warnings"] == [FRAMES]
    client.put("/v1/images/said", content=small(), params={"progressive": False, "rate": 200})
    blank = "no segment fits: nothing but one colour is left of it"
    for _ in range(2):  # made, and remembered
        assert warned(client.get("/v1/images/said", params={"bytes": 60})) == [blank]
        assert warned(client.get("/v1/images/said", params={"bytes": 60, "format": "png"})) == [blank]
    assert (
        warned(client.get("/v1/images/said")) == warned(client.get("/v1/images/said", params={"format": "png"})) == []
    )
    whole = (VECTORS / "segments.eoc").read_bytes()
    behind = ["what follows its end is left out (bytes: 2)"]
    assert warned(client.put("/v1/images/said", content=whole + b"\r\n")) == behind
    assert client.get("/v1/images/said").content == whole
    assert warned(client.post("/v1/decompress", content=whole + b"\r\n")) == behind
    stored = client.put("/v1/images/said", content=(VECTORS / "alpha.eoc").read_bytes())
    assert stored.json()["warnings"] == []
    assert "transparency is lost" in warned(client.get("/v1/images/said", params={"format": "jpeg"}))[0]


def test_lossless_files_of_16_bits_are_made_over_http(client: httpx.Client) -> None:
    deep, words = sixteen()
    made = client.post("/v1/compress", content=deep, params={"lossless": True})
    assert warned(made) == [] and np.array_equal(eocodec.decompress(made.content)[..., 0], words)
    decoded = client.post("/v1/decompress", content=made.content)
    assert warned(decoded) == ["its 16 bits a sample are rounded to 8, which is what this service gives"]
    opened = client.post("/v1/open", content=deep).json()["id"]
    assert client.get(f"/v1/open/{opened}/file", params={"lossless": True}).content == made.content
    assert client.get(f"/v1/open/{opened}/picture", params={"lossless": True, "scores": True}).status_code == 200
    assert client.put("/v1/images/sixteen", content=deep, params={"lossless": True}).is_success
    assert client.get("/v1/images/sixteen").content == made.content


def test_pictures_of_many_kinds_go_in(client: httpx.Client) -> None:
    base = Image.open(SAMPLES / "chelsea.png").crop((0, 0, 17, 3))
    deep = Image.fromarray((np.arange(51).reshape(3, 17) * 1200).astype(np.uint16))
    for image, kind in ((base, "PNG"), (base.convert("L"), "JPEG"), (base.convert("CMYK"), "JPEG"), (deep, "PNG"),
                        (base.convert("RGBA"), "WEBP"), (base.convert("P"), "GIF"), (base, "TIFF"), (base, "AVIF"),
                        (base.resize((1, 1)), "BMP")):  # fmt: skip
        out = io.BytesIO()
        image.save(out, kind)
        answer = client.post("/v1/compress", content=out.getvalue())
        assert answer.status_code == 200, answer.text
        assert eocodec.decompress(answer.content).shape[:2] == image.size[::-1]


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99999))) + chunk(b"IEND", b"")
    )


def test_large_bodies_pictures_and_bombs_are_refused(strict: Server) -> None:
    with httpx.Client(base_url=strict.url, timeout=30) as client:
        assert "bytes" in detail(refused := client.post("/v1/compress", content=bytes(2 << 20)))
        assert refused.status_code == 413
        chunked = client.post("/v1/compress", content=(bytes(65536) for _ in range(40)))
        assert chunked.status_code == 413
        form = client.post("/v1/compress", files={"image": bytes(2 << 20)})
        assert form.status_code == 413
        for size in ((1000, 400), (30000, 30000), (2**31 - 1, 2**31 - 1)):
            answer = client.post("/v1/compress", content=bomb(*size))
            assert answer.status_code in ((413,) if size[0] < 2**31 - 1 else (413, 415, 422)), size
            detail(answer)
        header = b"EOC\x01" + eocodec.load_model("photo").id + b"\0" + b"\xff\x7f\xff\x7f" + bytes(4)
        for path in ("decompress", "info", "denoise", "compress"):
            assert client.post(f"/v1/{path}", content=header).status_code == 413
        assert client.post("/v1/compress", content=small()).status_code == 200


def test_work_that_takes_too_long_is_ended_and_the_next_request_served() -> None:
    limits = ("--workers", 1, "--timeout", 5)  # many times what the picture takes on an idle core
    with serving(*limits) as server, httpx.Client(base_url=server.url, timeout=120) as client:
        with server.at_a_standstill():
            answer = client.post("/v1/compress", content=small())
        assert answer.status_code == 413 and "5 s" in detail(answer)
        assert client.post("/v1/compress", content=small()).status_code == 200


@pytest.mark.parametrize("head", ["POST /v1/compress", "PUT /v1/images/a", "POST /v1/open"])
@pytest.mark.parametrize(("length", "status", "most"), [(1000, 408, 2.4), (99999999999, 413, 0.9)])
def test_a_body_that_dawdles_or_is_said_to_be_too_large_is_refused_in_time(
    strict: Server, head: str, length: int, status: int, most: float
) -> None:
    port = int(strict.url.rsplit(":", 1)[1].strip("/"))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{head} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\nabc".encode())
        started = time.monotonic()
        answer = connection.recv(65536)
        assert time.monotonic() - started < most, "the upload may take 1.5 s"
        while b"}" not in answer:
            answer += connection.recv(65536)
        assert f" {status} ".encode() in answer and b"connection: close" in answer
        assert connection.recv(1) == b"", "the connection ends"
        assert time.monotonic() - started < most + 2


def test_a_client_that_sends_all_before_it_reads_gets_the_answer(strict: Server) -> None:
    body = bytes(12 << 20)  # more than connections hold
    port = int(strict.url.rsplit(":", 1)[1].strip("/"))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/open HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    body = small(200, 125, 20)
    with serving("--workers", 1, "--queue", 1, "--upload-timeout", 60) as server, ThreadPoolExecutor(10) as threads:

        def send(_: int) -> "httpx.Response":
            return httpx.post(server.url + "v1/denoise?method=shrink&sigma=20&shifts=3", content=body, timeout=120)

        answers = list(threads.map(send, range(10)))
        metrics = httpx.get(server.url + "metrics").text
    done = [a for a in answers if a.status_code == 200]
    refused = [a for a in answers if a.status_code == 503]
    assert len(done) + len(refused) == 10 and len(done) >= 2 and refused
    for a in refused:
        assert 1 <= int(a.headers["retry-after"]) <= 60 and "busy" in detail(a)
    assert min(a.elapsed for a in refused) < min(a.elapsed for a in done), "a refusal waits for no work"
    assert re.search(r"^eocodec_refused_total [1-9]", metrics, re.M)
    assert "eocodec_requests_in_work 0.0" in metrics


def test_a_client_that_leaves_does_no_harm(server: Server, client: httpx.Client) -> None:
    port = int(server.url.rsplit(":", 1)[1].strip("/"))
    head = f"POST /v1/compress HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(PNG)}\r\n\r\n".encode()
    for content in (PNG[:1000], PNG):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head + content)
    assert client.post("/v1/compress", content=small()).status_code == 200
    wait_until(lambda: server.in_work() == 0)


def test_whoever_leaves_the_queue_is_not_worked_for() -> None:
    body = small(400, 250, 20)
    with serving("--workers", 1, "--queue", 20) as server, ThreadPoolExecutor(8) as threads:
        slow = threads.submit(httpx.post, server.url + "v1/denoise?method=shrink&sigma=20", content=body, timeout=60)
        wait_until(lambda: server.in_work() == 1)

        def leave(_: int) -> None:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(server.url + "v1/denoise?method=shrink&sigma=20", content=body, timeout=0.2)

        list(threads.map(leave, range(6)))
        assert slow.result().status_code == 200
        one = server.worked()
        assert httpx.post(server.url + "v1/compress", content=small(), timeout=60).status_code == 200
        assert server.worked() - one < 2 * one, "the work of six that have left"
        left = [r for r in server.log if r["event"] == "request" and r["status"] == 499]
        assert len(left) >= 4


def test_a_process_that_dies_costs_at_most_its_own_request(server: Server, client: httpx.Client) -> None:
    big = io.BytesIO()
    Image.open(SAMPLES / "coffee.png").resize((1500, 1000)).save(big, "PNG")
    found: list[httpx.Response] = []
    # With a level the nets run, for far longer than is waited for; without one they may find nothing to do.
    work = "/v1/denoise?sigma=20"
    thread = threading.Thread(target=lambda: found.append(client.post(work, content=big.getvalue())))
    before = server.worked()
    thread.start()
    # Work is tried again if a process dies so soon that it was probably dead before; here two threads work at most.
    server.await_work(before, 2.2 * STILLBORN)
    for child in server.children():
        os.kill(child, signal.SIGKILL)
    thread.join(60)
    assert found[0].status_code == 500
    detail(found[0])
    for _ in range(3):
        assert client.post("/v1/compress", content=small()).status_code == 200
    idle = server.children()
    for child in idle:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: not set(idle) & set(server.children()))
    for _ in range(3):
        assert client.post("/v1/compress", content=small()).status_code == 200
    assert len(server.children()) <= 2


def test_a_process_that_is_killed_while_it_answers_hangs_nobody(server: Server) -> None:
    data = eocodec.compress(Image.open(SAMPLES / "coffee.png").resize((800, 500)), rate=2)
    with ThreadPoolExecutor(4) as threads:
        headers = {"accept": "image/bmp"}  # larger than a pipe holds
        for _ in range(2):
            before = server.worked()
            waiting = threads.submit(
                httpx.post, server.url + "v1/decompress", content=data, headers=headers, timeout=60
            )
            server.await_work(before)
            os.kill(server.process.pid, signal.SIGSTOP)  # so that nobody reads what the process writes
            wait_until(server.asleep)  # done, or waiting for their pipe to be read
            for child in server.children():
                os.kill(child, signal.SIGKILL)
            os.kill(server.process.pid, signal.SIGCONT)
            assert waiting.result().status_code in (200, 500)
            answers = [threads.submit(httpx.post, server.url + "v1/compress", content=small(), timeout=30)
                       for _ in range(4)]  # fmt: skip
            assert [a.result().status_code for a in answers] == [200] * 4
        assert "eocodec_requests_in_work 0.0" in httpx.get(server.url + "metrics").text


def test_processes_that_cannot_start_end_the_service_with_a_sentence(run: Runner) -> None:
    refused = run("serve", "--port", 0, "--device", "cuda")
    if refused.returncode == 0:
        pytest.skip("CUDA works here")
    assert refused.returncode == 1
    last = refused.stderr.decode().splitlines()[-1]
    assert last.startswith("eocodec: the service cannot work: CUDA does not work here")
    assert b"Traceback" not in refused.stderr


def test_conditions_hold_when_many_write_at_once(client: httpx.Client, server: Server) -> None:
    bodies = [(VECTORS / f"{n}.eoc").read_bytes() for n in ("colour", "grey", "alpha", "one-pixel")]
    with ThreadPoolExecutor(4) as threads:
        for k in range(6):

            def put(body: bytes, name: str = f"race{k}") -> int:
                url = server.url + f"v1/images/{name}"
                return httpx.put(url, content=body, headers={"if-none-match": "*"}, timeout=30).status_code

            assert sorted(threads.map(put, bodies)) == [201, 412, 412, 412]


def test_a_store_that_breaks_is_not_the_clients_fault(client: httpx.Client, store: Path) -> None:
    data = (VECTORS / "grey.eoc").read_bytes()
    assert client.put("/v1/images/beside", content=data).status_code == 201
    (store / "folder.eoc").mkdir()
    for method in ("GET", "PUT", "DELETE"):
        answer = client.request(method, "/v1/images/folder", content=data)
        assert answer.status_code == 507 and str(store) not in detail(answer), method
    assert client.get("/v1/images/beside").content == data
    (store / "folder.eoc").rmdir()


def test_a_stored_file_that_is_damaged_is_named_and_can_be_replaced(client: httpx.Client, store: Path) -> None:
    data = bytearray((VECTORS / "segments.eoc").read_bytes())
    data[2000] ^= 8
    for content in (b"something else", bytes(data), data[:10]):
        for name in ("spoilt", "removed", "task"):
            (store / f"{name}.eoc").write_bytes(content)
        for path in ("spoilt", "spoilt?bytes=900", "spoilt?format=png", "spoilt/info"):
            answer = client.get(f"/v1/images/{path}")
            assert answer.status_code == 500 and "stored file of this image is damaged" in detail(answer), path
        url, whole = "/v1/images/spoilt", (VECTORS / "grey.eoc").read_bytes()
        assert client.put(url, content=whole, headers={"if-none-match": "*"}).status_code == 412
        assert client.put(url, content=whole, headers={"if-match": '"other"'}).status_code == 412
        assert client.put(url, content=whole).status_code == 200 and client.get(url).content == whole
        tag = {"if-match": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
        assert client.delete("/v1/images/removed", headers=tag).status_code == 204
        assert client.delete("/v1/images/task").status_code == 204
    assert client.get("/readyz").status_code == 200


def test_a_store_that_is_gone_is_not_ready(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with serving("--workers", 1, "--store", store) as server:
        for spoil in (lambda: shutil.rmtree(store), lambda: store.write_text("a file")):
            spoil()
            answer = server.get("readyz")
            assert answer.status_code == 507 and str(store) not in detail(answer)
            assert server.get("healthz").status_code == 200
        store.unlink()
        store.mkdir()
        assert server.get("readyz").status_code == 200


def test_an_image_element_gets_a_picture_and_a_program_the_file(client: httpx.Client) -> None:
    data = (VECTORS / "colour.eoc").read_bytes()
    client.put("/v1/images/seen", content=data)
    browsers = (
        {"accept": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "sec-fetch-dest": "image"},
        {"accept": "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"},
        {"accept": "image/webp,image/avif,video/*;q=0.8,image/*,*/*;q=0.5"},
        {"accept": "image/x-eoc;q=0, image/png"},
        {"accept": "*/*", "sec-fetch-dest": "image"},
    )
    for headers in browsers:
        answer = client.get("/v1/images/seen", headers=headers)
        assert answer.headers["content-type"] in ("image/avif", "image/png"), headers
        assert Image.open(io.BytesIO(answer.content)).size == (67, 45)
        assert "Sec-Fetch-Dest" in answer.headers["vary"]
    for headers in ({}, {"accept": "*/*"}, {"accept": "image/x-eoc"}, {"accept": "application/octet-stream, */*"}):
        assert client.get("/v1/images/seen", headers=headers).content == data, headers


def test_fields_of_forms_count_everywhere(client: httpx.Client) -> None:
    damaged = bytearray((VECTORS / "segments.eoc").read_bytes())
    damaged[2000] ^= 8
    file = {"image": bytes(damaged)}
    assert client.post("/v1/decompress", files=file, data={"salvage": "true"}).status_code == 200
    assert client.post("/v1/decompress", files=file, data={"salvage": "maybe"}).status_code == 422
    assert client.post("/v1/decompress?foo=1", content=b"x").status_code == 422
    assert client.post("/v1/info", files=file, data={"foo": "1"}).status_code == 422
    odd = {"content-type": "multipart/form-data; boundary=x; charset=undefined"}
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc\r\n--x--\r\n'
    assert client.post("/v1/info", content=body, headers=odd).status_code == 400


def test_a_foreign_name_for_this_machine_is_refused_without_keys(client: httpx.Client) -> None:
    assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/v1/models", headers={"host": "localhost:1234"}).status_code == 200


@pytest.mark.parametrize(
    "arguments", [("--timeout", "inf"), ("--max-body", "nan"), ("--upload-timeout", "nan"), ("--store", "")]
)
def test_wrong_settings_are_one_sentence(arguments: tuple[str, str], call: Runner) -> None:
    refused = call("serve", "--port", 0, *arguments)
    assert refused.returncode == 2 and b"Traceback" not in refused.stderr


def test_metrics_and_logs_count_what_happened(server: Server, client: httpx.Client) -> None:
    client.post("/v1/compress", content=small())
    text = client.get("/metrics").text
    assert re.search(r'eocodec_requests_total{method="POST",route="/v1/compress",status="200"} [1-9]', text)
    assert 'route="/v1/images/{name}"' in text or "images" not in text  # names are not labels
    assert re.search(r'eocodec_request_seconds_count{route="/v1/compress"} [1-9]', text)
    lines = [r for r in server.log if r["event"] == "request" and r["path"] == "/v1/compress"]
    assert lines and {"method", "status", "seconds", "received", "sent", "timestamp", "level"} <= set(lines[-1])
    assert not [r for r in server.log if r["event"] == "not JSON"], server.lines


def test_keys_are_needed_beyond_this_machine(run: Runner, tmp_path: Path) -> None:
    refused = run("serve", "--host", "0.0.0.0", "--port", 0)
    assert refused.returncode == 2 and b"API keys" in refused.stderr
    short = tmp_path / "short"
    short.write_text("secret\n")
    assert run("serve", "--api-key-file", short, "--port", 0).returncode == 2
    short.write_text("schlüssel-mit-umlaut\n")
    assert run("serve", "--api-key-file", short, "--port", 0).returncode == 2
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}  # for the site\n\nanother-key-of-24-letters\n")
    with serving("--workers", 1, "--api-key-file", keys, "--public-read", "--store", "memory://pictures") as server:
        body = small()
        for headers, status in (({}, 401), ({"authorization": "Bearer wrong"}, 401), ({"x-api-key": KEY[:-1]}, 401),
                                ({"x-api-key": KEY}, 200), ({"authorization": f"Bearer {KEY}"}, 200),
                                ({"x-api-key": "another-key-of-24-letters"}, 200)):  # fmt: skip
            answer = httpx.post(server.url + "v1/compress", content=body, headers=headers, timeout=30)
            assert answer.status_code == status, headers
        for path, status in (("healthz", 200), ("readyz", 200), ("v1/models", 401), ("metrics", 401)):
            assert httpx.get(server.url + path).status_code == status
        assert httpx.put(server.url + "v1/images/a", content=body).status_code == 401
        assert httpx.put(server.url + "v1/images/a", content=body, headers={"x-api-key": KEY}).status_code == 201
        assert httpx.get(server.url + "v1/images/a").status_code == 200  # --public-read
        assert KEY not in "".join(server.lines)


def test_the_end_waits_for_running_requests() -> None:
    with serving("--workers", 1, "--grace", 60) as server:
        with ThreadPoolExecutor(2) as threads:
            with server.at_a_standstill():
                running = [
                    threads.submit(httpx.post, server.url + "v1/denoise", content=small(), timeout=60) for _ in range(2)
                ]
                wait_until(lambda: server.in_work() == 2)
                os.kill(server.process.pid, signal.SIGTERM)
                server.await_deaf()
            assert [r.result().status_code for r in running] == [200, 200]
        assert server.process.wait(60) == 0
        assert server.await_event("stopped", 5)
        assert server.children() == []


def test_a_port_that_is_taken_is_one_sentence(server: Server, run: Runner) -> None:
    port = server.url.rsplit(":", 1)[1].strip("/")
    refused = run("serve", "--port", port)
    assert refused.returncode == 1 and refused.stderr.count(b"\n") == 1 and b"listened" in refused.stderr


def test_a_store_that_cannot_be_used_is_one_sentence(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for store in (tmp_path / "file" / "below", "nosuch://bucket"):
        refused: subprocess.CompletedProcess[bytes] = run("serve", "--port", 0, "--store", store)
        assert refused.returncode == 1 and refused.stderr.count(b"\n") == 1
