"""The service as clients on the web meet it: open pictures, stored photographs, elements, conditions, sites, an end."""

import base64
import io
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import SAMPLES, VECTORS, wait_until
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

from servers import Server, serving  # noqa: E402

import eocodec  # noqa: E402
from eocodec.errors import EocodecError  # noqa: E402
from eocodec.format import File, Header, Segment, parse, serialise  # noqa: E402
from eocodec.service.app import check_presets  # noqa: E402
from eocodec.service.options import SHAPES  # noqa: E402
from eocodec.service.signing import sign  # noqa: E402
from eocodec.service.tasks import Order  # noqa: E402

pytestmark = pytest.mark.slow

SIGNING = "a-key-of-signed-urls-0123"
CHROME = {"accept": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "sec-fetch-dest": "image"}


class Elsewhere(BaseHTTPRequestHandler):
    """A site with a picture and a redirection."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.endswith("away"):
            self.send_response(302)
            self.send_header("Location", "/secret/cat.png")
            self.end_headers()
            return
        content = picture(64, 48)
        self.send_response(200 if self.path.endswith("cat.png") else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    site = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{site.server_port}/"
    site.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, elsewhere: str) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("store")
    more = ("--preset", "thumb=width=40&height=40&fit=cover", "--allow-source", elsewhere + "open/",
            "--write-timeout", 2, "--root-path", "/pictures")  # fmt: skip
    with serving("--workers", 1, "--queue", 60, "--store", store, *more) as s:
        yield s


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with httpx.Client(base_url=server.url, timeout=120) as c:
        yield c


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.open(SAMPLES / "chelsea.png").convert("RGB").crop((50, 50, 50 + width, 50 + height)).save(out, kind)
    return out.getvalue()


def image(answer: Any) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def detail(answer: Any) -> str:
    assert list(answer.json()) == ["detail"], answer.text
    return str(answer.json()["detail"])


def test_an_open_picture_gives_files_and_views_without_being_sent_again(client: Any) -> None:
    body = picture(200, 130)
    opened = client.post("/v1/open", content=body)
    assert opened.status_code == 201 and len(opened.json()["id"]) == 64
    url = f"/v1/open/{opened.json()['id']}"
    assert opened.headers["location"] == f"/pictures{url}"
    file = client.get(f"{url}/file", params={"rate": 40})
    assert file.content == client.post("/v1/compress", params={"rate": 40}, content=body).content
    view = client.get(f"{url}/picture", params={"rate": 40, "scores": True})
    np.testing.assert_array_equal(np.asarray(image(view)), eocodec.decompress(file.content))
    exact = client.post("/v1/compress", params={"rate": 40, "measure": True}, content=body)
    assert view.headers["x-eocodec-psnr"] == exact.headers["x-eocodec-psnr"]
    assert image(client.get(f"{url}/preview", params={"rate": 40})).size == (200, 130)
    estimate = client.get(f"{url}/estimate", params={"rate": 40})
    reached = float(view.headers["x-eocodec-psnr"])
    expected = {"bytes": len(file.content), "psnr": pytest.approx(reached, abs=1e-3), "exact": True}
    nothing = {"bytes": None, "psnr": None, "exact": False}  # of the process that did not make the file
    assert estimate.json() in (expected, nothing) and estimate.headers["cache-control"] == "no-store"
    assert client.get(f"{url}/estimate").status_code == 422
    rival = client.get(f"{url}/rival", params={"codec": "webp", "bytes": len(file.content)})
    assert image(rival).size == (200, 130) and int(rival.headers["x-eocodec-bytes"]) <= len(file.content)
    assert client.get(f"{url}/file", params={"lossless": True}).status_code == 200
    assert client.get(f"/v1/open/{'0' * 64}/file").status_code == 404
    assert client.get(f"{url}/file", params={"rate": 0}).status_code == 422
    assert client.get(f"{url}/file", params={"tiny": True}).status_code == 422


def test_what_is_no_picture_is_not_opened(client: Any) -> None:
    stream, face = ((VECTORS / f"{name}.eoc").read_bytes() for name in ("embedded", "face-tiny"))
    damaged = bytearray((VECTORS / "segments.eoc").read_bytes())
    damaged[2000] ^= 8
    huge = io.BytesIO()
    Image.new("1", (8192, 8192)).save(huge, "PNG")
    large = b"EOC\x01" + eocodec.load_model("photo").id + b"\0" + b"\xff\x7f\xff\x7f" + bytes(4)
    for body, status in ((b"", 422), (b"no picture", 415), (picture(200, 130)[:5000], 422), (huge.getvalue(), 413),
                         (large, 413), (bytes(damaged), 422), (stream[:12], 422), (b"EOC\x01", 422)):  # fmt: skip
        refused = client.post("/v1/open", content=body)
        assert refused.status_code == status and detail(refused), body[:20]
    for body in (stream, stream[:3000], face, base64.b64encode(face)):
        opened = client.post("/v1/open", content=body)
        assert opened.status_code == 201
        assert client.get(f"/v1/open/{opened.json()['id']}/file", params={"rate": 9}).status_code == 200


def test_text_of_a_tiny_file_goes_in_wherever_the_file_does(client: Any) -> None:
    face = (VECTORS / "face-tiny.eoc").read_bytes()
    for text in (base64.b64encode(face), base64.urlsafe_b64encode(face).rstrip(b"=") + b"\n"):
        for path in ("compress?rate=9", "decompress", "denoise?sigma=9", "edit?paths=light=1", "info"):
            found, wanted = (client.post(f"/v1/{path}", content=content) for content in (text, face))
            assert found.status_code == wanted.status_code == 200 and found.content == wanted.content, path
        assert client.put("/v1/images/tiny", content=text).status_code in (200, 201)
        assert client.get("/v1/images/tiny").content == face


def test_steps_that_differ_are_stored_or_refused_whatever_the_size(client: Any) -> None:
    body = picture(96, 64)
    for query in ("tune=eye", "tune=psnr", "focus=0,0,32,32:2", "tune=eye&focus=8,8,9,9"):
        assert client.put(f"/v1/images/tuned?{query}", content=body).status_code in (200, 201)
        kept = client.get("/v1/images/tuned").content
        assert kept == client.post(f"/v1/compress?rate=300&{query}", content=body).content, query
    for query in ("focus=900,900,5,5", "focus=1,2,3", "tune=ear", "focus=0,0,9,9&progressive=true",
                  "tune=eye&progressive=true", "focus=0,0,9,9&lossless=true"):  # fmt: skip
        for refused in (client.put(f"/v1/images/tuned?{query}", content=body),
                        client.post(f"/v1/compress?{query}", content=body)):  # fmt: skip
            assert refused.status_code == 422 and detail(refused), query
    assert client.get("/v1/images/tuned").content == kept
    assert client.put("/v1/images/tuned?tune=psnr&progressive=true", content=body).status_code == 200
    assert parse(client.get("/v1/images/tuned").content).header.embedded, "streams follow the squared error anyway"
    assert client.delete("/v1/images/tuned").status_code == 204


def test_large_pictures_are_stored_in_the_form_that_is_quick(client: Any) -> None:
    out = io.BytesIO()
    Image.open(SAMPLES / "coffee.png").convert("RGB").resize((640, 420)).save(out, "JPEG", quality=90)
    for size, embedded in ((picture(96, 64), True), (out.getvalue(), False)):
        assert client.put("/v1/images/photo", content=size).status_code in (200, 201)
        whole = client.get("/v1/images/photo").content
        assert parse(whole).header.embedded is embedded
        own, other = ("rate", "latents") if embedded else ("latents", "rate")
        part = client.get("/v1/images/photo", params={own: 200})
        assert part.content == eocodec.truncate(whole, **{own: 200}) and len(part.content) < len(whole)
        assert part.headers["etag"] != client.get("/v1/images/photo").headers["etag"]
        refused = client.get("/v1/images/photo", params={other: 200})
        assert refused.status_code == 422 and "file" in refused.json()["detail"]
        assert client.get("/v1/images/photo", params={"rate": 200, "latents": 200}).status_code == 422
    assert client.delete("/v1/images/photo").status_code == 204


LATER = {"prefer": "respond-async, wait=10"}


def outcome(client: Any, accepted: Any) -> dict[str, Any]:
    """What became of a task that an answer speaks of."""
    assert accepted.status_code == 202 and accepted.headers["preference-applied"] == "respond-async"
    path = accepted.headers["location"].removeprefix("/pictures")
    assert accepted.json() == {"id": path.rpartition("/")[2], "state": "pending", "status": None, "image": None}
    found: dict[str, Any] = {}

    def over() -> bool:
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
        found.update(answer.json())
        assert ("retry-after" in answer.headers) == (found["state"] == "pending")
        return found["state"] != "pending"

    wait_until(over, every=0.05)
    return found


def test_what_comes_late_does_not_undo_what_was_asked_for_later() -> None:
    order = Order()
    first, second = order.next(), order.next()
    with order.waiting("a"), order.waiting("b"):
        assert not order.is_overtaken("a", first) and order.awaits("a") and not order.awaits("c")
        order.done("a", second)
        assert order.is_overtaken("a", first) and not order.is_overtaken("b", first)
        assert not order.is_overtaken("a", order.next())
        order.done("a", first)
        assert order.is_overtaken("a", first)
        order.done("c", second)
    assert not order.is_overtaken("a", first) and not order.is_overtaken("c", first)
    assert not order.awaits("a")


@pytest.mark.parametrize("present", [True, False])
def test_an_image_that_was_removed_does_not_come_back(client: Any, server: Server, present: bool) -> None:
    """Nor does one that was removed before it was stored for the first time."""
    if present:
        assert client.put("/v1/images/gone", content=picture(16, 16)).status_code == 201
    assert client.delete("/v1/images/never").status_code == 404
    with server.at_a_standstill():
        accepted = client.put("/v1/images/gone", content=picture(96, 64), headers=LATER)
        assert client.delete("/v1/images/gone").status_code == 204
    failed = outcome(client, accepted)
    assert (failed["state"], failed["status"]) == ("failed", 409) and "later" in failed["detail"]
    assert client.head("/v1/images/gone").status_code == client.delete("/v1/images/gone").status_code == 404


def test_pictures_can_be_stored_after_the_answer(client: Any) -> None:
    body = picture(96, 64)
    assert client.put("/v1/images/now", content=body).status_code == 201
    done = outcome(client, client.put("/v1/images/later", content=body, headers=LATER))
    assert (done["state"], done["status"], done["image"]) == ("done", 201, "/pictures/v1/images/later")
    kept = client.get("/v1/images/later")
    assert kept.content == client.get("/v1/images/now").content and len(kept.content) == done["bytes"]
    again = outcome(client, client.put("/v1/images/later?rate=20", content=body, headers=LATER))
    assert again["status"] == 200 and again["bytes"] < done["bytes"]
    for content, headers, status in (
        (b"no picture", {}, 415),
        (body, {"if-unmodified-since": "Thu, 01 Jan 2099 00:00:00 GMT"}, 200),
        ((VECTORS / "colour.eoc").read_bytes()[:300], {}, 422),
    ):
        found = outcome(client, client.put("/v1/images/later", content=content, headers={**LATER, **headers}))
        assert found["status"] == status and ("detail" in found) == (status >= 400)
    refused = client.put("/v1/images/later", content=body, headers={**LATER, "if-none-match": "*"})
    assert refused.status_code == 412, "what is known to fail is not begun"
    assert client.put("/v1/images/later?rate=0", content=body, headers=LATER).status_code == 422
    assert client.get("/v1/tasks/" + "0" * 22).status_code == 404
    for name in ("now", "later"):
        assert client.delete(f"/v1/images/{name}").status_code == 204


def test_what_is_stored_after_the_answer_is_bounded_and_needs_no_client(tmp_path: Path) -> None:
    body = picture(96, 64)
    with serving("--workers", 1, "--queue", 2, "--store", tmp_path) as server:
        server.await_ready()
        url = server.url + "v1/images/a"
        with server.at_a_standstill():
            accepted = httpx.put(url, content=body, headers=LATER)  # its connection is closed then
            assert accepted.status_code == 202 and server.in_work() == 1
            refused = httpx.put(url, content=body, headers=LATER)
            assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
            assert server.get("v1/images/a").status_code == 404
        with httpx.Client(base_url=server.url.rstrip("/")) as client:
            assert outcome(client, accepted)["status"] == 201
        assert server.get("v1/images/a").status_code == 200 and server.in_work() == 0


def test_a_rate_of_a_stored_stream_takes_no_decoding(client: Any, server: Server) -> None:
    client.put("/v1/images/stream", content=picture(96, 64))
    whole = client.get("/v1/images/stream").content
    worked = server.worked()
    for rate in (3, 30, 200):
        assert client.get("/v1/images/stream", params={"rate": rate}).content == eocodec.truncate(whole, rate=rate)
    refused = client.get("/v1/images/stream", params={"rate": 500})
    assert refused.status_code == 422 and "goes up to rate 300" in refused.json()["detail"]
    assert server.worked() == worked, "the processes were asked"


def test_elements_get_small_pictures_of_modern_types(client: Any, server: Server) -> None:
    client.put("/v1/images/el", content=(VECTORS / "colour.eoc").read_bytes())
    first = client.get("/v1/images/el?v=3", headers=CHROME)
    assert first.headers["content-type"] == "image/avif" and image(first).size == (67, 45)
    worked = server.worked()
    again = client.get("/v1/images/el?v=4", headers=CHROME)
    assert again.content == first.content and server.worked() == worked, "a result is kept"
    tag = first.headers["etag"]
    assert client.get("/v1/images/el", headers={**CHROME, "if-none-match": tag}).status_code == 304
    part = client.get("/v1/images/el", headers={**CHROME, "range": "bytes=0-9"})
    assert part.status_code == 206 and part.content == first.content[:10]
    for query, size, kind in (("preset=thumb", (40, 40), "avif"), ("width=30&dpr=2&format=webp", (60, 40), "webp"),
                              ("crop=0,0,20,10&format=jpeg&quality=50", (20, 10), "jpeg"),
                              ("preset=thumb&width=10&format=png", (10, 40), "png")):  # fmt: skip
        got = client.get(f"/v1/images/el?{query}", headers=CHROME)
        assert image(got).size == size and got.headers["content-type"] == f"image/{kind}", query
    for query in ("preset=none", "crop=900,0,5,5", "crop=1,2,3", "width=0", "format=gif", "quality=101",
                  "format=eoc&width=3"):  # fmt: skip
        assert client.get(f"/v1/images/el?{query}").status_code == 422, query
    lossless = image(client.get("/v1/images/el?format=webp&quality=100"))
    np.testing.assert_array_equal(np.asarray(lossless), eocodec.decompress((VECTORS / "colour.eoc").read_bytes()))


def test_images_are_listed_and_described(client: Any) -> None:
    data = (VECTORS / "colour.eoc").read_bytes()
    for name in ("list-b", "list-a", "list-c"):
        client.put(f"/v1/images/{name}", content=data)
    answer = client.get("/v1/images?prefix=list-&limit=2").json()
    assert answer == {"images": [{"name": n, "bytes": len(data)} for n in ("list-a", "list-b")], "next": "list-b"}
    answer = client.get("/v1/images?prefix=list-&after=list-b").json()
    assert [i["name"] for i in answer["images"]] == ["list-c"] and answer["next"] is None
    about = client.get("/v1/images/list-a/info").json()
    assert (about["width"], about["height"], about["model"], about["bytes"]) == (67, 45, "photo", len(data))
    assert client.get("/v1/images/none/info").status_code == 404


def test_conditions_and_dates_hold_for_reading_too(client: Any) -> None:
    url, data = "/v1/images/cond", (VECTORS / "colour.eoc").read_bytes()
    client.put(url, content=data)
    got = client.get(url)
    tag, date = got.headers["etag"], got.headers["last-modified"]
    assert client.get(url, headers={"if-match": '"other"'}).status_code == 412
    assert client.get(url, headers={"if-match": tag}).status_code == 200
    assert client.get(url, headers={"if-match": f"W/{tag}"}).status_code == 412
    assert client.get(url, headers={"if-modified-since": date}).status_code == 304
    early = "Mon, 01 Jan 2001 00:00:00 GMT"
    assert client.get(url, headers={"if-modified-since": early}).status_code == 200
    assert client.get(url, headers={"if-unmodified-since": early}).status_code == 412
    assert client.put(url, content=data, headers={"if-unmodified-since": early}).status_code == 412
    assert client.put(url, content=data, headers={"if-match": f"W/{tag}"}).status_code == 412
    assert client.delete(url, headers={"if-unmodified-since": early}).status_code == 412
    assert client.get(url, headers={"range": "bytes=-0"}).status_code == 416
    head = client.head(url, params={"bytes": 200})
    part = client.get(url, params={"bytes": 200})
    assert head.headers["content-length"] == str(len(part.content)) and head.headers["etag"] == part.headers["etag"]


def test_options_and_wrong_methods_name_the_right_ones(client: Any) -> None:
    for path, methods in (("/v1/compress", {"POST"}), ("/v1/images/a", {"GET", "HEAD", "PUT", "DELETE"}),
                          ("/healthz", {"GET", "HEAD"}), ("/v1/images", {"GET", "HEAD"})):  # fmt: skip
        answer = client.options(path)
        assert answer.status_code == 204 and set(answer.headers["allow"].split(", ")) == methods | {"OPTIONS"}, path
        wrong = client.request("PATCH", path)
        assert wrong.status_code == 405 and set(wrong.headers["allow"].split(", ")) == methods | {"OPTIONS"}
        assert detail(wrong)
    assert client.options("/nothing").status_code in (404, 405)
    assert detail(client.get("/nothing")) == "there is nothing at this path"
    for method in ("PUT", "POST", "DELETE"):
        wrong = client.request(method, "/static/app.js")
        assert wrong.status_code == 405 and detail(wrong) == "this path knows GET, HEAD"
        assert wrong.headers["allow"] == client.options("/static/app.js").headers["allow"] == "GET, HEAD, OPTIONS"


def test_targets_may_be_whole_urls_whose_host_counts(client: Any) -> None:
    def answer(target: str, host: str = "localhost", method: str = "GET") -> Any:
        return client.request(method, "/", headers={"host": host}, extensions={"target": target.encode()})

    body = picture(16, 16)
    assert client.put("/v1/images/whole.url", content=body).status_code == 201
    for path in ("/healthz", "/v1/images?limit=1", "/v1/images/whole%2Eurl/info"):
        for found in (answer(f"http://127.0.0.1:8741{path}"), answer(f"HTTP://localhost{path}", "elsewhere.example")):
            assert found.status_code == 200 and found.json() == client.get(path).json(), path
    assert answer("http://localhost").headers["content-type"].startswith("text/html")
    assert answer("http://evil.example/healthz").status_code == 400
    assert answer("http://localhost/nothing").status_code == 404
    assert answer("http://localhost/healthz", method="OPTIONS").headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.delete("/v1/images/whole.url").status_code == 204
    general = answer("*", method="OPTIONS")
    assert general.status_code == 204 and "PUT" in general.headers["allow"]
    assert answer("*").status_code == 404 and answer("*", "evil.example", "OPTIONS").status_code == 400


def test_a_small_picture_is_stored_as_its_options_say(client: Any) -> None:
    """Embedded streams, which small ones become, have neither tuning nor regions: both were dropped in silence."""
    for query, words in {"focus=0,0,20,20": {"focus": True}, "tune=eye": {"tuning": 0.875}, "": {"form": None}}.items():
        stored = client.put(f"/v1/images/chosen?{query}", content=picture(60, 40))
        assert stored.status_code in (200, 201), stored.text
        facts = client.get("/v1/images/chosen/info").json()
        assert {k: facts.get(k) for k in words} == words or not query, facts
    wrong = client.put("/v1/images/chosen?focus=9999,9999,5,5", content=picture(60, 40))
    assert wrong.status_code == 422
    client.delete("/v1/images/chosen")


def test_a_model_that_cannot_be_used_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.eocm").write_bytes(b"no bundle")
    with serving("--workers", 1, env={"EOCODEC_MODELS": str(tmp_path)}) as server:
        line = server.await_event("model left out")
        assert line["model"] == "broken" and line["why"]
        assert [m["name"] for m in server.get("v1/models").json()["models"]] == ["photo", "face64"]


def test_pages_of_other_sites_cannot_use_a_service_without_keys(client: Any, server: Server) -> None:
    body = picture(32, 32)
    for headers in ({"origin": "https://evil.example", "content-type": "text/plain"}, {"origin": "null"},
                    {"sec-fetch-site": "cross-site"}):  # fmt: skip
        answer = client.post("/v1/compress", content=body, headers=headers)
        assert answer.status_code == 403 and detail(answer)
    same = server.url.rstrip("/")
    assert client.post("/v1/compress", content=body, headers={"origin": same}).status_code == 200
    answer = client.get("/v1/models", headers={"host": "evil.example"})
    assert answer.status_code == 400 and detail(answer)
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_names_and_origins_that_are_none_are_refused(client: Any) -> None:
    for host in ("[::1", "[", "]", "[x]:1", "localhost]"):
        answer = client.get("/v1/models", headers={"host": host})
        assert answer.status_code == 400 and detail(answer), host
    for origin in ("http://[bad", "[", "http://[::1]x", "http://[x]"):
        answer = client.post("/v1/compress", content=picture(32, 32), headers={"origin": origin})
        assert answer.status_code == 403 and detail(answer), origin
    for answer in (client.get("/healthz", headers={"host": "[::1]:8000"}), client.get("/healthz")):
        assert answer.status_code == 200


def test_head_is_answered_as_get_without_a_body(client: Any) -> None:
    opened = client.post("/v1/open", content=picture(64, 64)).json()["id"]
    assert client.put("/v1/images/headed", content=picture(64, 64)).status_code in (200, 201)
    for path in ("healthz", "readyz", "metrics", "openapi.json", "", "v1/models", "v1/models/photo/spectrum",
                 "v1/images", "v1/images/headed", "v1/images/headed/info", f"v1/open/{opened}/file",
                 "v1/tasks/none", "v1/images/none", "v1/remote", "static/app.js"):  # fmt: skip
        head, got = client.head(f"/{path}"), client.get(f"/{path}")
        assert head.status_code == got.status_code and not head.content and got.content, path
        assert head.headers["content-type"] == got.headers["content-type"], path
        if path != "metrics":  # which count the request before
            assert head.headers["content-length"] == got.headers["content-length"], path
    assert "head" not in client.get("/openapi.json").json()["paths"]["/v1/models"]


def test_parameters_are_given_once(client: Any) -> None:
    body, name = picture(32, 32), "rate: is given more than once"
    for path, fields in (("?rate=3&rate=4", {}), ("", {"rate": ["3", "4"]}), ("?rate=3", {"rate": "4"})):
        form = {"files": {"image": body}, "data": fields} if fields else {"content": body}
        answer = client.post(f"/v1/compress{path}", **form)
        assert answer.status_code == 422 and detail(answer) == name, (path, fields)
    for path in ("/v1/images?limit=1&limit=2", "/v1/images/a?rate=3&rate=3", "/v1/models?a=1&a=2"):
        assert client.get(path).status_code == 422, path
    assert client.post("/v1/compress?rate=9", files={"image": body}, data={"tune": "psnr"}).status_code == 200
    with pytest.raises(EocodecError, match="width: is given more than once"):
        check_presets({"thumb": "width=200&width=300"})


def test_unknown_ids_are_not_found(client: Any) -> None:
    for path in ("tasks/nosuch", "open/zzz/file", "open/zzz/preview?rate=9", "open/..%2f/estimate?rate=9"):
        answer = client.get(f"/v1/{path}")
        assert answer.status_code == 404 and detail(answer), path


def test_what_is_wrong_with_parameters_is_said_in_words(client: Any) -> None:
    body, said = picture(32, 32), {}
    for path in ("images/-a", "images/a?crop=1", "open/0/rival?codec=A!&bytes=9", "open/0/estimate?rate=9&denoise=x"):
        said[path] = client.get(f"/v1/{path}")
    for path in ("compress?focus=1", "compress?denoise=x", "denoise?sigma=-1", "edit?paths=light"):
        said[path] = client.post(f"/v1/{path}", content=body)
    for path, answer in said.items():
        assert answer.status_code == 422 and not set(detail(answer)) & set("^$[]\\"), (path, detail(answer))
    assert "1 to 128 ASCII letters" in detail(said["images/-a"])
    long = "x" * 5000
    for answer in (client.get("/v1/images/a", params={long: "1"}), client.get(f"/v1/images?{long}=1&{long}=2"),
                   client.post("/v1/compress", files={"image": body}, data={long[:900]: "1"})):  # fmt: skip
        assert answer.status_code == 422 and len(detail(answer)) < 200
    with pytest.raises(EocodecError, match="crop: a crop is left,top,width,height"):
        check_presets({"thumb": "crop=1"})
    patterns = re.findall(r'"pattern": ?"((?:[^"\\]|\\.)*)"', client.get("/openapi.json").text)
    assert patterns and {json.loads(f'"{p}"') for p in patterns} <= set(SHAPES)


def test_requests_have_ids_and_clients_are_not_what_headers_say(client: Any, server: Server) -> None:
    given = client.get("/healthz", headers={"x-request-id": "abc-1", "x-forwarded-for": "6.6.6.6"})
    assert given.headers["x-request-id"] == "abc-1"
    made = client.get("/v1/models", headers={"x-request-id": "a b\x7f", "x-forwarded-for": "6.6.6.6"})
    assert re.fullmatch(r"[0-9a-f]{16}", made.headers["x-request-id"])
    wait_until(lambda: [r for r in server.log if r.get("id") == made.headers["x-request-id"]])
    (line,) = [r for r in server.log if r.get("id") == made.headers["x-request-id"]]
    assert line["client"] == "127.0.0.1" and line["level"] == "info"


def test_any_one_file_of_a_form_is_the_picture(client: Any) -> None:
    for field in ("file", "image", "upload"):
        assert client.post("/v1/compress", files={field: ("a.png", picture(32, 32))}).status_code == 200
    assert client.post("/v1/compress", data={"file": "text"}).status_code == 415  # a raw body, and no picture


def test_encoded_bodies_are_refused_by_the_name_of_their_encoding(client: Any) -> None:
    import gzip

    body = picture(32, 32)
    packed = gzip.compress(body)
    for path in ("compress", "info", "open"):
        answer = client.post(f"/v1/{path}", content=packed, headers={"content-encoding": "GZip"})
        assert answer.status_code == 415 and "gzip" in detail(answer), path
        assert answer.headers["accept-encoding"] == "identity"
    for answer in (
        client.put("/v1/images/packed", content=packed, headers={"content-encoding": "identity, gzip", **LATER}),
        client.post("/v1/compress", files={"image": body}, headers={"content-encoding": "gzip"}),
    ):
        assert answer.status_code == 415 and "gzip" in detail(answer)
    assert client.post("/v1/compress", content=body, headers={"content-encoding": "identity"}).status_code == 200
    assert client.get("/healthz", headers={"content-encoding": "gzip"}).status_code == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    port = int(server.url.rsplit(":", 1)[1].strip("/"))
    head = "PUT /v1/images/big HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_pictures_from_elsewhere_come_from_where_it_is_allowed(client: Any, elsewhere: str) -> None:
    got = client.get("/v1/remote", params={"url": elsewhere + "open/cat.png", "width": 32, "format": "webp"})
    assert image(got).size == (32, 24)
    asked = len(Elsewhere.asked)
    again = client.get("/v1/remote", params={"url": elsewhere + "open/cat.png", "width": 32, "format": "webp"})
    assert again.content == got.content and len(Elsewhere.asked) == asked
    refused = client.get("/v1/remote", params={"url": elsewhere + "secret/cat.png"})
    assert refused.status_code == 403 and detail(refused)
    assert client.get("/v1/remote", params={"url": elsewhere + "open/../secret/cat.png"}).status_code == 403
    assert client.get("/v1/remote", params={"url": elsewhere + "open/away"}).status_code == 502
    assert client.get("/v1/remote", params={"url": elsewhere + "open/none"}).status_code == 404
    assert "/secret/cat.png" not in Elsewhere.asked


def test_clients_that_leave_stop_their_work(client: Any, server: Server) -> None:
    out = io.BytesIO()
    Image.open(SAMPLES / "coffee.png").convert("RGB").resize((1200, 800)).save(out, "PNG")  # 20 s of one core
    before, processes = server.worked(), server.children()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + "v1/compress?lossless=true", content=out.getvalue(), timeout=3)
    assert client.post("/v1/compress", content=picture(32, 32)).status_code == 200
    assert server.worked() - before < 12, "the work of a client that had left was done to its end"
    assert server.children() == processes, "a process was lost, with all that it had loaded"


def test_clients_that_read_slowly_cost_no_memory_and_are_sent_off(client: Any, server: Server) -> None:
    header = Header(eocodec.load_model("photo").id, 64, 64, 0, 0, embedded=True)
    payload = np.random.default_rng(0).bytes(12 << 20)  # more than a system keeps for a connection
    client.put("/v1/images/long", content=serialise(File(header, None, (Segment(1, payload),))))
    assert client.head("/v1/images/long").headers["content-length"] > str(12 << 20)

    def resident() -> int:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    port = int(server.url.rsplit(":", 1)[1].strip("/"))
    request = b"GET /v1/images/long HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before, connections = resident(), []
    try:
        for _ in range(12):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            connection.sendall(request)
            connections.append(connection)
        wait_until(lambda: sum(r.get("status") == 499 for r in server.log) >= 12)
        assert resident() - before < 40e6, "answers of 12 MB wait in memory for twelve clients"
    finally:
        for connection in connections:
            connection.close()


def test_signed_urls_open_what_they_name(tmp_path: Path) -> None:
    keys = {"EOCODEC_API_KEYS": "an-api-key-of-the-site", "EOCODEC_SIGNING_KEYS": SIGNING}
    with serving("--workers", 1, "--store", tmp_path / "s", env=keys) as server:
        mine = {"x-api-key": "an-api-key-of-the-site"}
        url = server.url.rstrip("/")
        data = (VECTORS / "colour.eoc").read_bytes()
        assert httpx.put(f"{url}/v1/images/a", content=data, headers=mine).status_code == 201
        assert httpx.get(f"{url}/v1/images/a?width=20").status_code == 401
        signed = sign(SIGNING, "/v1/images/a?width=20&format=png")
        shown = httpx.get(url + signed, timeout=60)
        assert image(shown).width == 20 and shown.headers["cross-origin-resource-policy"] == "cross-origin"
        assert httpx.get(url + signed.replace("=20", "=21")).status_code == 403
        assert httpx.get(url + sign(SIGNING, "/v1/images/a", expires=1)).status_code == 403
        assert httpx.get(url + sign(SIGNING, "/v1/models")).status_code == 401, "only images are opened by it"
        assert SIGNING not in "".join(server.lines)


@pytest.mark.parametrize(
    "arguments",
    [("--cors", "https://example.org/"), ("--cors", "example.org"), ("--preset", "a=colour=red"), ("--preset", "a"),
     ("--allow-source", "https://example.org"), ("--root-path", "x/")],
)  # fmt: skip
def test_values_that_mean_nothing_are_refused_at_the_start(arguments: tuple[str, str], call: Any) -> None:
    refused = call("serve", "--port", 0, *arguments)
    assert refused.returncode in (1, 2) and b"Traceback" not in refused.stderr


def test_a_second_signal_ends_at_once_and_a_hangup_is_an_end() -> None:
    with (
        serving("--workers", 1, "--grace", 600) as server,
        ThreadPoolExecutor(1) as threads,
        server.at_a_standstill() as children,
    ):
        lost = threads.submit(httpx.post, server.url + "v1/compress", content=picture(32, 32), timeout=200)
        wait_until(lambda: server.in_work() == 1)
        os.kill(server.process.pid, signal.SIGHUP)
        server.await_deaf()
        assert server.process.poll() is None, "a request is still worked at"
        assert server.stop(signal.SIGINT) == 0
        with pytest.raises(httpx.HTTPError):
            lost.result().raise_for_status()
        assert children and not any(Path(f"/proc/{child}").exists() for child in children)


def test_an_end_is_not_waited_for_longer_than_the_grace() -> None:
    with serving("--workers", 1, "--grace", 1) as server, ThreadPoolExecutor(1) as threads, server.at_a_standstill():
        lost = threads.submit(httpx.post, server.url + "v1/compress", content=picture(32, 32), timeout=200)
        wait_until(lambda: server.in_work() == 1)
        assert server.stop(signal.SIGTERM) == 0
        assert server.await_event("stopped", 5)
        with pytest.raises(httpx.HTTPError):
            lost.result().raise_for_status()
