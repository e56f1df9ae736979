"""Parts of the service by themselves: open pictures, stored images, pictures for web pages, what is kept on disk."""

import asyncio
import functools
import io
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from paths import SAMPLES, VECTORS, bundle_of
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("cachetools", reason="the extra serve is not installed")

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from eocodec import format
from eocodec.codec import compress_picture, decompress, truncate
from eocodec.coding import ordinary
from eocodec.coding.embedded import Embedded
from eocodec.coding.walk import Walk
from eocodec.errors import EocodecError, FormatError, LimitError
from eocodec.image import Picture, read_picture
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model, shipped_models
from eocodec.service import catalogue, remote, rendering, work
from eocodec.service.access import Access
from eocodec.service.app import create_app
from eocodec.service.catalogue import described
from eocodec.service.gallery import Gallery
from eocodec.service.images import Damaged, Images, Taken, identify
from eocodec.service.lingering import BYTES, Lingering, refuse_body
from eocodec.service.manners import Manners
from eocodec.service.opened import Desk
from eocodec.service.options import CompressOptions, ImageOptions
from eocodec.service.pool import Busy, Gone, Pool
from eocodec.service.preview import PREVIEW_PIXELS
from eocodec.service.problems import problem
from eocodec.service.remote import Fetches, allowed, fetched
from eocodec.service.rivals import rival, rivals, ssimulacra2
from eocodec.service.settings import Settings
from eocodec.service.signing import check, sign
from eocodec.service.spool import CHUNK, Cache, sent
from eocodec.service.state import State
from eocodec.service.tasks import Tasks
from eocodec.storage import Store
from eocodec.workers import Cancelled

KEYS = ("an-api-key-of-the-site",)
RATE: dict[str, Any] = {"rate": 48.0, "bpp": None, "max_bytes": None, "psnr": None, "denoise": None,
                        "progressive": False, "lossless": False}  # fmt: skip


def body(width: int, height: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.open(SAMPLES / "chelsea.png").convert("RGB").crop((0, 0, width, height)).save(out, kind)
    return out.getvalue()


def read(data: bytes) -> Picture:
    return read_picture(io.BytesIO(data))


@pytest.fixture
def opened(tmp_path: Path) -> tuple[str, str]:
    """Path and identity of an open picture."""
    path = tmp_path / "body"
    path.write_bytes(body(120, 60))
    return str(path), "a"


@pytest.mark.slow
def test_an_open_picture_is_transformed_once_for_all_its_files(opened: tuple[str, str], model: Model) -> None:
    desk = Desk(read)
    picture = read(body(120, 60))
    for options in (
        RATE,
        {**RATE, "rate": 200.0},
        {**RATE, "rate": None, "bpp": 0.8},
        {**RATE, "rate": None, "psnr": 33},
    ):
        expected = compress_picture(picture, **options, model=model, measure=True)
        made = desk.file(*opened, model, options)
        image, reached = made.picture()
        assert made.data == expected.data
        assert reached == pytest.approx(expected.psnr, abs=1e-6)
        np.testing.assert_array_equal(np.asarray(image), decompress(made.data))
    assert desk.transforms == 2  # files for a PSNR are tuned for it


def test_the_nets_are_asked_once_for_a_file_and_its_picture(
    opened: tuple[str, str], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    foresee = ordinary.foresee

    def counted(model: Model, header: format.Header, *arguments: Any, **more: Any) -> Any:
        asked.append(header.step)
        return foresee(model, header, *arguments, **more)

    monkeypatch.setattr(ordinary, "foresee", counted)
    desk = Desk(read)
    for k, rate in enumerate((20.0, 30.0, 50.0, 77.0, 130.0, 210.0)):  # some have a step that stands for another C
        made = desk.file(*opened, model, {**RATE, "rate": rate})
        image, _ = made.picture()
        assert len(asked) == k + 1
        np.testing.assert_array_equal(np.asarray(image), decompress(made.data))


def test_estimates_learn_nothing_from_files_that_are_tuned_otherwise(
    tmp_path: Path, model: Model, coffee: np.ndarray
) -> None:
    """A file for the eye takes twice the bytes of one for squared error at its step, which small limits have."""
    path, desk = tmp_path / "body", Desk(read)
    Image.fromarray(np.ascontiguousarray(coffee[:256, :384])).save(path, "PNG")
    smallest = desk.file(str(path), "a", model, {**RATE, "rate": 1.0})
    desk = Desk(read)
    made = desk.file(str(path), "a", model, {**RATE, "rate": None, "max_bytes": len(smallest.data) - 1})
    assert isinstance(made.coded.file, format.File) and not made.coded.file.header.tuning
    image, reached = made.picture()
    np.testing.assert_array_equal(np.asarray(image), decompress(made.data))
    assert reached == pytest.approx(psnr(read(path.read_bytes()).rgb, np.asarray(image)), abs=1e-6)
    assert desk.estimate("a", model, RATE) is None
    size = len(desk.file(str(path), "a", model, {**RATE, "rate": 30.0}).data)
    estimate = desk.estimate("a", model, {**RATE, "rate": 40.0})
    assert estimate is not None and size < estimate.bytes < 1.5 * size


def test_a_picture_in_several_sizes_is_decoded_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def counted(body: bytes) -> Picture:
        decoded.append(body)
        return Picture(decompress(body, model))

    monkeypatch.setattr(work, "_desk", Desk(counted))
    monkeypatch.setattr(work, "_pixels", 1 << 20)
    data = compress_picture(read(body(120, 60)), 20, model=model).data
    for width in (100, 50, 100):
        made = work.render(data, "image/webp", ImageOptions(width=width).arguments(), identify(data))
        assert Image.open(io.BytesIO(made.body)).width == width
    assert decoded == [data]
    cut = compress_picture(read(body(120, 60)), 5, model=model).data
    work.render(cut, "image/webp", ImageOptions(width=50).arguments(), identify(cut))
    assert decoded == [data, cut]


def test_an_open_picture_and_its_rivals_are_measured_by_what_can_be_seen(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = read(body(120, 60)).rgb
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    alpha[:, 70:] = 0
    path, out = tmp_path / "body", io.BytesIO()
    Image.fromarray(np.dstack([np.where(alpha[..., None] > 0, rgb, 255), alpha]).astype(np.uint8)).save(out, "PNG")
    path.write_bytes(out.getvalue())
    desk = Desk(read)
    image, reached = desk.file(str(path), "see-through", model, RATE).picture()
    shown = np.asarray(image)
    assert reached == pytest.approx(psnr(rgb[:, :70], shown[:, :70, :3]), abs=1e-6)
    found, picture = desk.rival(str(path), "see-through", "webp", 900)
    assert not (picture.rgb[:, 70:] == 255).all()  # the rival is not given what is hidden
    monkeypatch.setattr(work, "_desk", desk)
    told = work.opened_rival(str(path), "see-through", "webp", 900).headers["Psnr"]
    assert float(told) == pytest.approx(psnr(rgb[:, :70], found.rgb[:, :70]), abs=1e-3)


def test_what_a_process_keeps_open_is_bounded(tmp_path: Path, model: Model) -> None:
    desk = Desk(read, pixels=100 * 64)
    path = tmp_path / "body"
    path.write_bytes(body(64, 48))
    for identity in "abc":  # two of them fit
        desk.file(str(path), identity, model, RATE)
    desk.file(str(path), "c", model, {**RATE, "rate": 20.0})
    assert desk.transforms == 3
    desk.file(str(path), "a", model, RATE)
    assert desk.transforms == 4
    path.write_bytes(body(120, 60))
    for rate in (20.0, 30.0):  # too large to be kept at all, and made all the same
        assert desk.file(str(path), "large", model, {**RATE, "rate": rate}).data
    assert desk.transforms == 6


@pytest.mark.slow
def test_a_preview_looks_like_what_the_file_decodes_to(tmp_path: Path, model: Model, coffee: np.ndarray) -> None:
    picture = Image.fromarray(coffee).resize((576, 384), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "PNG")
    path = tmp_path / "body"
    path.write_bytes(out.getvalue())
    desk = Desk(read)
    original = np.asarray(picture.reduce(2))
    for rate, tune in ((3, "eye"), (48, "eye"), (48, "psnr")):
        preview = np.asarray(desk.preview(str(path), "a", model, rate, tune))
        assert preview.shape == original.shape and preview.shape[0] * preview.shape[1] <= PREVIEW_PIXELS
        data = compress_picture(Picture(np.asarray(picture)), rate, model=model, tune=tune).data
        decoded = np.asarray(Image.fromarray(decompress(data)).reduce(2))
        assert psnr(original, preview) == pytest.approx(psnr(original, decoded), abs=1.5)  # as much is lost
    plain, focused = (
        np.abs(np.asarray(desk.preview(str(path), "a", model, 3, "eye", focus)).astype(float) - original)
        for focus in (None, [[0, 0, 192, 384, 2.0]])
    )
    assert focused[:, :96].mean() < 0.8 * plain[:, :96].mean()
    assert focused[:, 192:].mean() == pytest.approx(plain[:, 192:].mean(), rel=0.1)


@pytest.mark.slow
def test_estimates_come_near_and_are_exact_where_a_file_was_made(
    tmp_path: Path, model: Model, coffee: np.ndarray
) -> None:
    path, desk = tmp_path / "body", Desk(read)
    Image.fromarray(coffee).save(path, "PNG")

    def estimate(rate: float) -> Any:
        return desk.estimate("a", model, {**RATE, "rate": rate})

    assert estimate(48) is None, "nothing is known of the picture"
    desk.file(str(path), "a", model, {**RATE, "rate": 96.0})
    early = estimate(48)
    assert early is not None and early.psnr is None and not early.exact
    desk.file(str(path), "a", model, {**RATE, "rate": 96.0}).picture()
    picture = read(path.read_bytes())
    for rate, bytes_off, psnr_off in ((16.0, 0.25, 0.6), (200.0, 0.1, 0.4)):
        found, made = estimate(rate), compress_picture(picture, rate, model=model, measure=True)
        assert found is not None and not found.exact
        assert found.bytes == pytest.approx(len(made.data), rel=bytes_off)
        assert found.psnr == pytest.approx(made.psnr, abs=psnr_off)
    known = desk.file(str(path), "a", model, {**RATE, "rate": 16.0})
    _, reached = known.picture()
    found = estimate(16.0)
    assert found is not None and (found.bytes, found.psnr, found.exact) == (len(known.data), reached, True)
    nearer, made = estimate(24.0), compress_picture(picture, 24.0, model=model, measure=True)
    assert nearer is not None and nearer.psnr is not None and made.psnr is not None
    assert nearer.bytes == pytest.approx(len(made.data), rel=0.08)
    assert nearer.psnr == pytest.approx(made.psnr, abs=0.3)
    assert desk.transforms == 1


def test_nothing_is_estimated_of_small_pictures_and_streams(opened: tuple[str, str], model: Model) -> None:
    desk = Desk(read)
    desk.file(*opened, model, RATE).picture()
    assert desk.estimate(opened[1], model, {**RATE, "rate": 20.0}) is None, "it is smaller than the sample"
    known = desk.estimate(opened[1], model, RATE)
    assert known is not None and known.exact, "what was measured is known all the same"
    assert desk.estimate(opened[1], model, {**RATE, "rate": 20.0, "progressive": True}) is None
    with pytest.raises(EocodecError, match="rate"):
        desk.estimate(opened[1], model, {**RATE, "rate": 1e5})


def dawdle(seconds: float) -> int:
    """The process, after a while; it takes a moment to give up."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            time.sleep(0.001)
    finally:
        time.sleep(0.2 if time.monotonic() < end else 0)
    return os.getpid()


@pytest.mark.slow
def test_work_about_a_picture_waits_for_its_process_that_gives_up_something_outdated() -> None:
    async def run() -> None:
        left = asyncio.Event()

        async def gone() -> bool:
            left.set()
            return True

        pool = Pool(2, 4, 60, time.monotonic, ())
        try:
            first = await pool.run(dawdle, 0.0, about="a")
            outdated = asyncio.create_task(pool.run(dawdle, 30.0, gone=gone, about="a"))
            await left.wait()
            assert pool._leaving
            assert await pool.run(dawdle, 0.0, about="a") == first, "the other one does not know the picture"
            with pytest.raises(Gone):
                await outdated
            wanted = asyncio.create_task(pool.run(dawdle, 60.0, about="a"))
            while len(pool._idle) > 1:
                await asyncio.sleep(0.001)
            assert await pool.run(dawdle, 0.0, about="a") != first, "nobody waits for work that is wanted"
            assert not wanted.done()
            wanted.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wanted
        finally:
            await pool.close()

    asyncio.run(run())


def test_tasks_leave_room_for_those_who_wait() -> None:
    begun: list[int] = []
    given_back: list[int] = []

    async def run() -> None:
        tasks, may_end = Tasks(3, 1), asyncio.Event()
        request = Request({"type": "http", "method": "PUT", "path": "/", "headers": [], "root_path": ""})

        async def work(number: int) -> Response:
            begun.append(number)
            await may_end.wait()
            if number == 1:
                raise FormatError("it is damaged")
            return JSONResponse({"name": "a"}, 201, {"Location": "/v1/images/a"})

        answers = []
        for number in range(3):
            held = AsyncExitStack()
            held.enter_context(tasks.room(1))
            held.callback(given_back.append, number)
            answers.append(json.loads(bytes(tasks.start(request, functools.partial(work, number), held).body)))
        with pytest.raises(Busy), tasks.room(1):
            pass
        await asyncio.sleep(0)
        assert begun == [0] and given_back == [], "the others wait"
        may_end.set()
        while len(given_back) < 3:
            await asyncio.sleep(0)
        with tasks.room(1), tasks.room(1), tasks.room(1), pytest.raises(Busy), tasks.room(1):
            pass
        done, failed, _ = (tasks.of(a["id"]) for a in answers)
        assert done == {"id": answers[0]["id"], "state": "done", "status": 201, "image": "/v1/images/a", "name": "a"}
        assert (failed["state"], failed["status"], failed["detail"]) == ("failed", 422, "it is damaged")
        may_end.clear()
        held = AsyncExitStack()
        held.callback(given_back.append, 3)
        tasks.start(request, functools.partial(work, 3), held)
        await asyncio.sleep(0)
        await tasks.end()
        assert begun == given_back == [0, 1, 2, 3], "what is given up lets go of its place"

    asyncio.run(run())


@pytest.mark.parametrize(("refused", "rest"), [(408, True), (404, False), (503, True)])
def test_what_is_left_of_a_body_is_read_after_the_answer_and_without_a_place(
    refused: int, rest: bool, model: Model
) -> None:
    happened: list[str] = []
    sent: list[Any] = []
    arriving = [{"type": "http.request", "body": b"late", "more_body": more} for more in (True, False)]

    async def run() -> None:
        state = State(Settings({}, upload_timeout=0.05), [model])
        state.pool = pool = Pool(1, 0, 60, time.monotonic, ())

        async def receive() -> Any:
            if not sent:
                return await asyncio.get_running_loop().create_future()  # a client that sends nothing
            assert pool.taken == 0
            happened.append("read")
            return arriving.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)
            happened.append(message["type"])

        async def work(pool: Pool) -> Response:
            if refused == 408:
                await state.bodies.read(request)
            raise Busy(1) if refused == 503 else HTTPException(404)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal request
            request = Request(scope, receive)
            try:
                await state.placed(request, work)
            except (Busy, HTTPException) as e:
                await (await problem(request, e))(scope, receive, send)

        headers = [(b"content-length", b"5000")]
        request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers})
        try:
            await Lingering(app, 1 << 20)(request.scope, receive, send)
        finally:
            await pool.close()

    asyncio.run(run())
    assert sent[0]["status"] == refused and sent[-1].get("more_body", False) is False
    assert ((b"connection", b"close") in sent[0]["headers"]) == rest
    start, body = "http.response.start", "http.response.body"
    assert happened == ([start, body, "read", "read", body] if rest else [start, body])


def _read_of_a_refused_body(limit: int, *headers: tuple[bytes, bytes]) -> int:
    """Bytes that are read of a body without end that is refused."""
    size = 0

    async def receive() -> Any:
        nonlocal size
        size += 1 << 20
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: Any) -> None:
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        refuse_body(scope)
        await Response(status_code=404)(scope, receive, send)

    chunk = bytes(1 << 20)
    scope = {"type": "http", "method": "PUT", "path": "/", "headers": [(b"content-length", b"99999999999"), *headers]}
    asyncio.run(Lingering(app, limit)(scope, receive, send))
    return size


def test_of_a_refused_body_no_more_is_read_than_one_may_have_and_none_that_waits_to_be_sent() -> None:
    for limit in (0, 5 << 20):
        assert limit < _read_of_a_refused_body(limit) <= limit + BYTES + (1 << 20)
    assert _read_of_a_refused_body(0, (b"expect", b"100-continue")) == 0


class Hand:
    """Stands for a process of a pool: works in the pool's thread, and is as large as the last work made it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.resident, self._given_up = 0, threading.Event()

    def call(self, function: Callable[..., Any], *arguments: Any, limit: float) -> "Hand":
        function(self, *arguments)
        if self._given_up.is_set():
            self._given_up.clear()
            raise Cancelled
        return self

    def wait(self, event: threading.Event) -> None:
        """Work until something happens, or this is given up."""
        while not event.is_set() and not self._given_up.is_set():
            time.sleep(0.001)

    def cancel(self) -> None:
        self._given_up.set()

    def renew(self) -> None:
        self.resident = 0

    def stop(self) -> None:
        self._given_up.set()

    def end(self) -> None:
        pass


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools whose work is done by hand, at once; what waits for too long waits for ever."""
    monkeypatch.setattr("eocodec.service.pool.Worker", Hand)
    monkeypatch.setattr("eocodec.service.pool.GLANCE", 0.005)
    monkeypatch.setattr("eocodec.service.pool.LINGER", 600.0)


def _nothing(hand: Hand) -> None:
    pass


def _using(size: int, queue: int, use: Callable[[Pool], Awaitable[None]], memory: int = 0) -> None:
    async def run() -> None:
        pool = Pool(size, queue, 60, time.monotonic, (), memory=memory)
        try:
            await asyncio.wait_for(use(pool), 10)
        finally:
            await pool.close()

    asyncio.run(run())


def test_who_leaves_as_its_turn_comes_takes_no_process_along(hands: None) -> None:
    async def use(pool: Pool) -> None:
        may_end = threading.Event()
        first = asyncio.create_task(pool.run(Hand.wait, may_end))
        await asyncio.sleep(0)

        async def gone() -> bool:
            may_end.set()
            await first
            for _ in range(5):
                await asyncio.sleep(0)  # meanwhile it is this one's turn
            return True

        with pytest.raises(Gone):
            await pool.run(_nothing, gone=gone)
        await pool.run(_nothing)

    _using(1, 4, use)


def test_nobody_waits_for_a_process_that_has_given_up_and_has_other_work(hands: None) -> None:
    async def use(pool: Pool) -> None:
        async def gone() -> bool:
            return True

        never, may_end = threading.Event(), threading.Event()
        first = await pool.run(_nothing, about="a")
        with pytest.raises(Gone):
            await pool.run(Hand.wait, never, gone=gone, about="a")
        wanted = asyncio.create_task(pool.run(Hand.wait, may_end, about="a"))
        while len(pool._idle) > 1:
            await asyncio.sleep(0.001)
        assert await pool.run(_nothing, about="a") is not first
        may_end.set()
        assert await wanted is first

    _using(2, 4, use)


def test_a_process_that_was_renewed_knows_no_picture_any_more(hands: None) -> None:
    def grow(hand: Hand) -> None:
        hand.resident = 2

    async def use(pool: Pool) -> None:
        grown = await pool.run(grow, about="a")
        while len(pool._idle) < 2:
            await asyncio.sleep(0.001)
        ends = [threading.Event(), threading.Event()]
        waiting = [asyncio.create_task(pool.run(Hand.wait, end)) for end in ends]
        while pool._idle:
            await asyncio.sleep(0.001)
        found = []
        for end, one in zip(ends, waiting, strict=True):
            end.set()
            found.append(await one)
        assert found[0] is grown, "the last to become free is the first to be taken"
        assert await pool.run(_nothing, about="a") is found[1]

    _using(2, 4, use, memory=1)


def test_previews_are_not_for_models_of_one_size(opened: tuple[str, str], model: Model) -> None:

    with pytest.raises(EocodecError, match="preview"):
        Desk(read).preview(*opened, load_model("face64"), 100)


@pytest.mark.slow
def test_marks_beside_a_stream_cut_it_as_decoding_does() -> None:
    data, model = (VECTORS / "embedded.eoc").read_bytes(), load_model(bundle_of("photo"))
    file = format.from_bytes(data)
    marks = Embedded().marks(model, file)
    for rate in (1, 5, 40, 100):
        cut = format.to_bytes(Embedded().cut_at_mark(model.any_manifest, file, marks, rate))
        assert cut == truncate(data, rate=rate)
    with pytest.raises(EocodecError, match="goes up to rate"):
        Embedded().cut_at_mark(model.any_manifest, file, marks, 768)


def test_a_stored_picture_comes_with_the_marks_of_its_stream(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_pixels", 1 << 20)
    monkeypatch.setitem(work._models, "photo", model)
    options = {**RATE, "rate": None, "model": "photo", "progressive": None, "tiny": False, "resize": False,
               "measure": False, "tune": None, "focus": None}  # fmt: skip
    kept = work.store(body(48, 32), options)
    file = format.from_bytes(kept.data)
    assert kept.marks is not None
    for rate in (2, 20, 250):
        cut = format.to_bytes(Embedded().cut_at_mark(model.any_manifest, file, kept.marks, rate))
        assert cut == truncate(kept.data, rate=rate)
    with pytest.raises(EocodecError, match="goes up to rate"):  # the marks go on behind the end of the file
        Embedded().cut_at_mark(model.any_manifest, file, kept.marks, 330)
    monkeypatch.setattr(work, "EMBEDDED_PIXELS", 1000)
    with pytest.raises(EocodecError, match="cannot have regions"):
        work.store(body(48, 32), {**options, "progressive": True, "focus": [[0.0, 0.0, 9.0, 9.0]]})
    large = work.store(body(48, 32), options)
    assert large.marks is None and large.data == compress_picture(read(body(48, 32)), 300, model=model).data
    monkeypatch.setattr(work, "EMBEDDED_PIXELS", 1 << 18)
    drawing = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 90)).save(drawing, "PNG")
    exact = work.store(drawing.getvalue(), options)
    lossless = compress_picture(read(drawing.getvalue()), lossless=True, model=model)
    assert exact.marks is None and exact.data == lossless.data
    wanted = work.store(drawing.getvalue(), {**options, "progressive": True})
    assert len(wanted.data) > len(exact.data) and format.parse(wanted.data).header.embedded and wanted.marks
    tiny = (VECTORS / "face-tiny.eoc").read_bytes()
    assert work.store(tiny, options).data == tiny


def hoard(megabytes: int) -> tuple[int, int]:
    """Keep so much in this process; its id, and how much it keeps now."""
    kept: list[bytes] = vars(hoard).setdefault("kept", [])
    kept.append(b"x" * (megabytes << 20))
    return os.getpid(), sum(map(len, kept)) >> 20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say what a process takes")
def test_a_process_that_keeps_too_much_is_replaced_between_two_requests() -> None:
    replaced: list[int] = []

    async def use(memory: int) -> list[tuple[int, int]]:
        pool = Pool(1, 0, 60, time.monotonic, (), memory=memory)
        pool.renewed = replaced.append
        try:
            return [await pool.run(hoard, megabytes) for megabytes in (1, 2, 300, 1)]
        finally:
            await pool.close()

    (first, a), (second, b), (third, c), (fourth, d) = asyncio.run(use(200 << 20))
    assert first == second == third != fourth
    assert (a, b, c, d) == (1, 3, 303, 1)
    assert len(replaced) == 1 and replaced[0] > 300 << 20
    assert len({pid for pid, _ in asyncio.run(use(0))}) == 1, "without a bound none is replaced"
    assert len(replaced) == 1


class Counting:
    """A describer, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, data: bytes) -> dict[str, Any]:
        self.asked += 1
        return {"width": 1, "height": len(data), "alpha": False}


@pytest.mark.parametrize("where", [lambda folder: str(folder / "s"), lambda folder: f"memory://{folder.name}"])
def test_what_is_known_of_an_image_is_found_out_once_for_each_content(
    tmp_path: Path, where: Callable[[Path], str]
) -> None:
    describe = Counting()
    images = Images(where(tmp_path), describe)
    assert images.about("a") is None
    images.write("a", b"first")
    for _ in range(3):
        about = images.about("a")
        assert about is not None and about.tag == identify(b"first") and about.bytes == 5 and about.size == (1, 5)
    again = Images(where(tmp_path), describe)  # a service that starts anew
    assert again.about("a") == about and describe.asked == 1
    images.write("a", b"second")
    for one in (images, again):
        about = one.about("a")
        assert about is not None and about.tag == identify(b"second")
    opened = images.open("a", about)
    assert opened is not None and opened.read() == b"second"
    opened.close()
    images.write("a", b"third!")
    assert images.open("a", about) is None, "it is not the one that is known any more"
    assert images.listed("", "", 10) == ([{"name": "a", "bytes": 6}], False)
    assert images.remove("a") and not images.remove("a") and images.about("a") is None


def test_nothing_is_left_of_an_image_that_was_removed(tmp_path: Path) -> None:
    images = Images(str(tmp_path), Counting())
    images.write("a", b"first")
    assert images.about("a") is not None and (tmp_path / ".about" / "a.json").exists()
    assert images.remove("a") and [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_what_is_known_is_of_the_content_that_is_there_when_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Images(str(tmp_path), Counting())
    images.write("a", b"first")
    read = Store.read

    def replaced_then(store: Store, name: str) -> bytes:
        data = read(store, name)
        if name == "a.eoc" and data == b"first":
            store.write(name, b"second")
        return data

    monkeypatch.setattr(Store, "read", replaced_then)
    about = images.about("a")
    assert about is not None and about.tag == identify(b"second") and about.bytes == 6


def test_lists_come_in_order_and_in_parts(tmp_path: Path) -> None:
    images = Images(str(tmp_path), Counting())
    for name in ("b2", "a", "b1", "c", "b3"):
        images.write(name, b"x")
    (tmp_path / "notes.txt").write_text("not an image")
    found, more = images.listed("b", "", 2)
    assert [f["name"] for f in found] == ["b1", "b2"] and more
    found, more = images.listed("b", "b2", 2)
    assert [f["name"] for f in found] == ["b3"] and not more


def test_a_name_that_must_be_new_is_taken_by_one_writer_only(tmp_path: Path) -> None:
    images = Images(str(tmp_path), Counting())
    images.write("a", b"mine", new=True)
    with pytest.raises(Taken):
        images.write("a", b"yours", new=True)
    assert images.read("a") == b"mine" and not [p for p in tmp_path.iterdir() if "partial" in p.name]
    store = Store.at(str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:  # another service writes between the look and the write
        patch.setattr(Store, "exists", lambda self, name: False)
        with pytest.raises(FileExistsError):
            store.create("a.eoc", b"yours")
    assert images.read("a") == b"mine"


def test_marks_are_kept_by_content(tmp_path: Path) -> None:
    images = Images(str(tmp_path), Counting())
    data, model = (VECTORS / "embedded.eoc").read_bytes(), load_model(bundle_of("photo"))
    marks = Embedded().marks(model, format.from_bytes(data))
    assert images.marks(identify(data)) is None
    images.keep_marks(identify(data), marks)
    assert Images(str(tmp_path), Counting()).marks(identify(data)) == marks


def test_notes_that_are_broken_are_made_again(tmp_path: Path) -> None:
    describe = Counting()
    images = Images(str(tmp_path), describe)
    images.write("a", b"first")
    images.about("a")
    for note in ("", "[]", "{}", '{"version": 1}', "\0"):
        (tmp_path / ".about" / "a.json").write_text(note)
        about = Images(str(tmp_path), describe).about("a")
        assert about is not None and about.tag == identify(b"first"), note


def test_a_file_that_nobody_can_read_is_damaged_and_what_is_known_of_it_is_told(tmp_path: Path) -> None:
    def refuse(data: bytes) -> dict[str, Any]:
        raise EocodecError("not an .eoc file")

    images = Images(str(tmp_path), refuse)
    (tmp_path / "a.eoc").write_bytes(b"something else")
    with pytest.raises(Damaged, match="not an") as found:
        images.about("a")
    assert (found.value.about.tag, found.value.about.bytes) == (identify(b"something else"), 14)


def test_results_are_kept_within_their_bound() -> None:
    cache = Cache(1000)
    for k in range(10):
        cache.put(str(k), bytes([k]) * 300)
        cache.put("0", b"zero" * 75)  # used all the time
    assert cache.held <= 1000 and len(cache) == 3
    assert cache.open("5") is None
    found = cache.open("0")
    assert found is not None
    file, size = found
    cache.put("huge", bytes(2000))
    assert cache.open("huge") is None
    cache.close()
    with file:  # who reads it still can
        assert file.read() == b"zero" * 75 and size == 300


def test_a_result_that_is_kept_again_takes_the_place_of_the_old_one() -> None:
    cache = Cache(1000)
    try:
        for data in (b"old", b"newer"):
            cache.put("a", data)
        path = cache.path("a")
        assert path is not None and Path(path).read_bytes() == b"newer"
        assert list(Path(path).parent.iterdir()) == [Path(path)] and cache.held == 5
    finally:
        cache.close()


def test_a_file_is_sent_whole_or_the_connection_breaks_and_it_is_closed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(CHUNK + 10))

    async def received(size: int) -> int:
        file = (tmp_path / "a").open("rb")
        answer = cast("StreamingResponse", sent(file, "image/png", {}, 200, (0, size)))
        try:
            return sum([len(part) async for part in answer.body_iterator])
        finally:
            assert file.closed

    assert asyncio.run(received(CHUNK + 10)) == CHUNK + 10
    with pytest.raises(OSError, match="ended"):
        asyncio.run(received(CHUNK + 11))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("width=100", (100, 67)),
        ("height=20", (30, 20)),
        ("width=100&height=20", (30, 20)),
        ("width=9000", (300, 200)),
        ("width=60&height=60&fit=cover", (60, 60)),
        ("width=600&height=600&fit=cover", (600, 600)),
        ("width=10&height=90&fit=fill", (10, 90)),
        ("crop=10,20,100,50", (100, 50)),
        ("crop=250,150,100,100", (50, 50)),
        ("crop=0,0,100,100&width=50&dpr=2", (100, 100)),
        ("crop=0,0,100,100&width=25&dpr=2", (50, 50)),
    ],
)
def test_pictures_are_cropped_and_scaled(options: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[:200, :300])
    arguments = ImageOptions.model_validate(dict(p.split("=") for p in options.split("&"))).arguments()
    assert rendering.finished_size(image.size, arguments, 1 << 20) == size
    for kind in rendering.KINDS.values():
        made = Image.open(io.BytesIO(rendering.render(image, kind, arguments, 1 << 20)))
        assert made.size == size and made.get_format_mimetype() == kind


def test_cropping_and_covering_keep_the_right_part() -> None:
    values = np.zeros((100, 300, 3), np.uint8)
    values[:, 100:200] = 200  # the middle third
    image = Image.fromarray(values)
    cover = ImageOptions(width=50, height=50, fit="cover").arguments()
    crop = ImageOptions(crop="100,0,100,100").arguments()
    for arguments in (cover, crop):
        made = np.asarray(Image.open(io.BytesIO(rendering.render(image, "image/png", arguments, 1 << 20))))
        assert made.mean() > 195
    with pytest.raises(EocodecError, match="outside"):
        rendering.render(image, "image/png", ImageOptions(crop="300,0,10,10").arguments(), 1 << 20)


@pytest.mark.parametrize("fit", ["fill", "cover"])
def test_made_pictures_are_no_larger_than_pictures_may_be(fit: str) -> None:
    arguments = ImageOptions(width=200, height=100, fit=fit).arguments()
    image = Image.new("RGB", (4, 4))
    assert Image.open(io.BytesIO(rendering.render(image, "image/png", arguments, 20_000))).size == (200, 100)
    for made in (rendering.finished_size, lambda size, *rest: rendering.render(image, "image/png", *rest)):
        with pytest.raises(LimitError, match="200x100 pixels is larger than the limit of 19999"):
            made(image.size, arguments, 19_999)


@pytest.mark.parametrize(
    ("accept", "size", "alpha", "kind"),
    [
        ("image/avif,image/webp,image/*,*/*;q=0.8", (10, 10), False, "image/avif"),
        ("image/webp,image/*", (10, 10), False, "image/webp"),
        ("image/webp,image/jpeg", (20000, 10), False, "image/jpeg"),
        ("image/webp,image/*", (20000, 10), False, "image/png"),
        ("image/jpeg,image/png;q=0.5", (10, 10), True, "image/png"),
        ("image/*", (10, 10), False, "image/png"),
        ("image/avif;q=0.1,image/jpeg", (10, 10), False, "image/jpeg"),
        ("", (10, 10), False, "image/png"),
    ],
)
def test_the_type_for_an_element_can_hold_the_picture(
    accept: str, size: tuple[int, int], alpha: bool, kind: str
) -> None:
    assert rendering.kind_for(accept, size, alpha) == kind


def test_a_models_default_rate_is_one_that_it_has(model: Model) -> None:
    assert described(model, "photo")["default_rate"] == 96.0
    few = SimpleNamespace(
        name="few", id=model.id, full_id=model.full_id, size=None, block=48, denoising_methods=(), files={},
        any_manifest=SimpleNamespace(tiny_number=0, licence="", card=""),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "shipped_paths", lambda model: None)
        assert described(cast("Model", few), "photo")["default_rate"] == 48.0


def application(*origins: str) -> FastAPI:
    """The application without processes, and with routes that fail."""
    app = create_app(Settings({}, keys=("an-api-key-of-the-site",), origins=origins), [load_model("photo")])

    @app.get("/fault")
    async def fault() -> None:
        raise ZeroDivisionError("a secret")

    @app.get("/broken-off")
    async def broken_off() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            raise ZeroDivisionError("a secret")

        return StreamingResponse(parts())

    return app


def test_a_fault_of_the_service_is_answered_as_every_problem_is(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(application("https://example.org"), raise_server_exceptions=False)
    headers = {"x-request-id": "abc-1", "origin": "https://example.org"}

    def check(answer: Any) -> None:
        assert answer.status_code == 500 and answer.json() == {"detail": "something went wrong in the service"}
        assert answer.headers["x-request-id"] == "abc-1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"

    with capture_logs() as log:
        answer = client.get("/fault", headers=headers)
    check(answer)
    assert answer.headers["access-control-allow-origin"] == "https://example.org"
    (line,) = [r for r in log if r["event"] == "fault"]
    assert line["id"] == "abc-1" and isinstance(line["exc_info"], ZeroDivisionError)
    assert [r["status"] for r in log if r["event"] == "request"] == [500]
    with pytest.raises(ZeroDivisionError):  # what has begun is not answered twice; the server breaks it off
        TestClient(application()).get("/broken-off")
    monkeypatch.setattr(Manners, "_refusal", lambda self, scope: 1 / 0)
    with capture_logs() as log:
        check(client.get("/healthz", headers=headers))
    assert [r["event"] for r in log] == ["fault", "request"]


def test_a_fault_of_a_task_is_logged_and_told() -> None:
    request = Request({"type": "http", "method": "PUT", "path": "/", "headers": [], "state": {"request": "abc-1"}})
    with capture_logs() as log:
        answer = asyncio.run(problem(request, ZeroDivisionError()))
    assert answer.status_code == 500 and [(r["event"], r["id"]) for r in log] == [("fault", "abc-1")]


def test_a_source_that_does_not_speak_http_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x00 nonsense\r\n\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(HTTPException) as refused:
            fetched(f"http://127.0.0.1:{listener.getsockname()[1]}/a.png", 1000, 5.0)
        thread.join()
    assert refused.value.status_code == 502


@pytest.mark.parametrize("headers", [True, False])
def test_the_seconds_of_a_source_are_those_of_the_whole_fetch(headers: bool) -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"" if headers else b"Content-Length: 99\r\n\r\n"))
                while not ended.wait(0.02):
                    connection.sendall(b"X-A: 1\r\n" if headers else b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        with pytest.raises(HTTPException) as refused:
            fetched(f"http://127.0.0.1:{listener.getsockname()[1]}/a.png", 1000, 0.2)
        took = time.monotonic() - began
        ended.set()
        thread.join()
    assert refused.value.status_code == 504 and took < 0.9, "100 headers, or 99 bytes, take 2 s"


def test_slow_sources_keep_nothing_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()

    def slow(url: str, limit: int, seconds: float) -> bytes:
        may_end.wait(10)
        return url.encode()

    monkeypatch.setattr(remote, "fetched", slow)

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(refusing)
        fetches = Fetches(2)
        first, left = (asyncio.create_task(fetches.content(url, 1, 1.0, 7)) for url in "ab")
        await asyncio.sleep(0)
        left.cancel()  # its client leaves; the source is still being fetched
        with pytest.raises(Busy) as busy:
            await fetches.content("c", 1, 1.0, 7)
        assert busy.value.seconds == 7
        may_end.set()
        assert await first == b"a"
        while True:
            with suppress(Busy):
                assert await fetches.content("d", 1, 1.0, 7) == b"d"
                break
            await asyncio.sleep(0.01)
        fetches.close()

    refusing = ThreadPoolExecutor(1)
    refusing.shutdown()  # what is fetched takes no thread from others
    asyncio.run(run())


def test_pictures_from_elsewhere_are_kept_as_long_and_by_whom_stored_ones_are() -> None:
    for keys, public, word in (((), False, "public"), (KEYS, True, "public"), (KEYS, False, "private")):
        settings = Settings({}, keys=keys, public_read=public, sources=("http://a/",), hosts=("testserver",))
        client = TestClient(create_app(settings, [load_model("photo")]))
        headers = {"if-none-match": "*", "authorization": f"Bearer {KEYS[0]}"}
        answer = client.get("/v1/remote", params={"url": "http://a/b"}, headers=headers)
        assert (answer.status_code, answer.headers["cache-control"]) == (304, f"{word}, max-age=60")


class Willing:
    """Stands for the processes: has places, and does nothing."""

    def place(self) -> Any:
        """One of them."""
        return nullcontext()

    def wait_seconds(self) -> int:
        """When to try again."""
        return 1

    async def run(self, *arguments: Any, **more: Any) -> Any:
        """What a file would be."""
        return SimpleNamespace(data=b"", marks=None)


def test_a_picture_that_finds_no_room_on_disk_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    app = create_app(Settings({}, hosts=("testserver",)), [load_model("photo")])
    app.state.eocodec.pool = Willing()
    client = TestClient(app)
    assert client.post("/v1/open", content=b"first").status_code == 201
    monkeypatch.setattr(Path, "write_bytes", full)
    refused = client.post("/v1/open", content=b"second")
    assert (refused.status_code, refused.json()) == (
        507,
        {"detail": "there is no room on the disk to keep the picture open"},
    )


def test_no_more_tasks_are_taken_than_there_is_room_for_however_slow_their_bodies_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = {"type": "http", "method": "PUT", "path": "/", "root_path": "", "headers": [(b"prefer", b"respond-async")]}

    async def run() -> None:
        state = State(Settings({}, store=str(tmp_path), queue=4), [load_model("photo")])
        state.pool = cast("Pool", Willing())
        gallery, arrived, broken = Gallery(state), asyncio.Event(), [True]

        async def read(request: Request) -> tuple[bytes, dict[str, str]]:
            await arrived.wait()
            if broken:
                raise HTTPException(408)
            return b"", {}

        monkeypatch.setattr(state.bodies, "read", read)

        async def put_all() -> list[Any]:
            arrived.clear()
            puts = [gallery.put(f"a{k}", Request(dict(scope)), CompressOptions()) for k in range(5)]
            waiting = asyncio.gather(*puts, return_exceptions=True)
            for _ in range(9):
                await asyncio.sleep(0)
            arrived.set()
            return [type(e).__name__ for e in await waiting]

        assert sorted(await put_all()) == [*["Busy"] * 3, *["HTTPException"] * 2]
        broken.clear()  # those that came to nothing have given back their room
        assert sorted(await put_all()) == [*["Busy"] * 3, *["JSONResponse"] * 2]
        await state.tasks.end()

    asyncio.run(run())


@pytest.mark.parametrize("keys", [(), ("an-api-key-of-the-site",)])
def test_files_and_their_parts_need_no_signature_where_reading_is_public(keys: tuple[str, ...]) -> None:
    access = Access(Settings({}, keys=keys, public_read=True, signing=("a-signing-key-of-the-site",)))
    for query, status in {
        **dict.fromkeys(("", "bytes=9", "rate=3", "latents=60", "v=1&format=eoc", "latents=9&v=2"), 0),
        **dict.fromkeys(("width=9", "latents=60&width=9", "format=png", "preset=latents"), 401 if keys else 403),
    }.items():
        request = Request({"type": "http", "path": "/v1/images/a", "query_string": query.encode(), "headers": []})
        if status:
            with pytest.raises(HTTPException) as refused:
                access._need_right(request, None, None)
            assert refused.value.status_code == status, query
        else:
            access._need_right(request, None, None)


@pytest.mark.parametrize(
    ("query", "headers", "refused"),
    [
        ("", {"accept": "image/avif,image/webp"}, True),
        ("rate=10.1", {"accept": "image/avif"}, True),
        ("", {"sec-fetch-dest": "image"}, True),
        ("format=eoc", {"accept": "image/avif", "sec-fetch-dest": "image"}, False),
        ("v=signature=", {"accept": "*/*"}, False),
        ("", {"accept": "text/html,*/*"}, False),
    ],
)
def test_pictures_that_headers_ask_for_need_a_signature_too(query: str, headers: dict[str, str], refused: bool) -> None:
    access = Access(Settings({}, keys=("an-api-key-of-the-site",), public_read=True, signing=("a-key-of-signatures",)))
    raw = [(k.encode(), v.encode()) for k, v in headers.items()]
    request = Request({"type": "http", "path": "/v1/images/a", "query_string": query.encode(), "headers": raw})
    if refused:
        with pytest.raises(HTTPException) as e:
            access._need_right_to_see(request, None, None)
        assert e.value.status_code == 401
    else:
        access._need_right_to_see(request, None, None)
    access._need_right_to_see(request, None, "an-api-key-of-the-site")


def test_signatures_hold_for_what_was_signed_and_until_they_expire() -> None:
    keys = ["first-key-of-enough-letters", "second-key-of-enough-letters"]
    for key in keys:
        path, _, query = sign(key, "/v1/images/a?width=20").partition("?")
        assert check(keys, path, query)
        assert not check(keys, "/v1/images/b", query)
        assert not check(keys, path, query.replace("20", "21"))
        assert not check(keys, path, query + "&width=21")
        assert not check(["another-key-of-enough-letters"], path, query)
    for expires, fine in ((4e9, True), (1.0, False)):
        path, _, query = sign(keys[0], "/v1/images/a", expires).partition("?")
        assert check(keys, path, query) is fine
    path, _, query = sign(keys[0], "/v1/images/a?expires=4000000000", 1.0).partition("?")
    assert not check(keys, path, query), "of two times none holds"
    assert not check(keys, "/v1/images/a", "signature=") and not check(keys, "/v1/images/a", "")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/b/x.png",
        "http://example.org/a/x.png",
        "https://example.org.evil.net/a/x.png",
        "https://example.org@evil.net/a/x.png",
        "https://user@example.org/a/x.png",
        "https://example.org/a/../b.png",
        "https://example.org/a/%2e%2E/b.png",
        "https://example.org/a/..\\b.png",
        "https://example.org/a/..%5cb.png",
        "https://example.org/a/x.png#y",
        "https://example.org/a/x y.png",
        "file:///etc/passwd",
        "https://[::1/a/",
    ],
)
def test_only_what_lies_below_an_allowed_url_is_fetched(url: str) -> None:
    assert allowed("https://example.org/a/b/x.png?size=1", ("https://example.org/a/",))
    assert not allowed(url, ("https://example.org/a/",))


@pytest.mark.parametrize("codec", ["avif", "webp", "jpeg"])
def test_another_codec_gets_as_many_bytes_and_no_more(codec: str) -> None:
    rgb = read(body(160, 120)).rgb
    assert codec in rivals()
    found = [rival(rgb, codec, size) for size in (1500, 6000)]
    assert len(found[0].data) <= 1500 < len(found[1].data) <= 6000
    assert psnr(rgb, found[0].rgb) < psnr(rgb, found[1].rgb)
    with pytest.raises(EocodecError, match="smallest"):
        rival(rgb, codec, 20)
    with pytest.raises(EocodecError, match="no codec"):
        rival(rgb, "gif", 1000)


def test_ssimulacra2_of_a_picture_with_itself_is_a_hundred() -> None:
    pytest.importorskip("ssimulacra2", reason="ssimulacra2 is not installed")
    rgb = read(body(64, 64)).rgb
    same, worse = ssimulacra2(rgb, rgb), ssimulacra2(rgb, rival(rgb, "jpeg", 900).rgb)
    assert same == pytest.approx(100) and worse is not None and worse < 90
    assert ssimulacra2(rgb[:4], rgb[:4]) is None


def test_a_process_has_the_sessions_of_its_first_model_open_before_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.eocm"
    path.write_bytes(shipped_models()["photo"].read_bytes())
    monkeypatch.setattr(work, "_models", {})
    monkeypatch.setattr(work, "keep_memory", lambda: None)
    monkeypatch.setattr(work, "_pixels", 0)
    work.start({"mine": str(path), "face64": str(bundle_of("face64"))}, 1, "cpu", 1 << 20)
    opened = work._models["mine"].runtime._sessions
    assert {"encoder", "decoder", *Walk.graph_names(work._models["mine"])} == set(opened)
