"""Promises of format, entropy and codec that no other quick test holds: refusals, and the rarer ways through."""

import base64
from dataclasses import replace

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import SAMPLES
from PIL import Image

import eocodec
from eocodec import codec, format
from eocodec.coding import embedded
from eocodec.coding.range_coder import ESCAPE_CLASSES, MAX_ESCAPE_CLASS, Reader, tables_of
from eocodec.errors import EocodecError, FormatError, LimitError
from eocodec.format import File, Header, Segment, Tiny
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

HEADER = Header(b"abcd", 64, 48, 6144, 40000)


@pytest.fixture(scope="module")
def face64() -> Model:
    return load_model("face64")


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))


# Format


@given(st.integers(1, 3), st.integers(0, 255), st.booleans(), st.binary(max_size=60))
def test_a_tiny_file_is_read_from_any_spelling_of_base64(number: int, step: int, grey: bool, payload: bytes) -> None:
    file = Tiny(number, step, grey, payload)
    data = format.serialise_tiny(file)
    assert format.parse_tiny(data) == file
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        for spelling in (text, text.rstrip(b"="), b"%s\n" % text):
            assert format.tiny_from_text(spelling) == data
    assert format.tiny_from_text(data) == data


@pytest.mark.parametrize(
    "data",
    [b"", b"EOC\1", b"+not base64!", b"+A==", b"/9j/4AAQSkZJRg==", b"+" * (2 * format.MAX_TINY + 1)],
    ids=["empty", "eoc", "no-base64", "short", "base64-of-a-jpeg", "long"],
)
def test_what_is_no_tiny_text_stays_as_it_is(data: bytes) -> None:
    assert format.tiny_from_text(data) == data
    with pytest.raises(FormatError, match="not a tiny file"):
        format.parse_tiny(data)


@pytest.mark.parametrize("wrong", [{"model": b"abc"}, {"rate": 65536}, {"rate": -1}, {"step": 65536}, {"step": -1}])
def test_values_that_do_not_fit_their_field_are_not_written(wrong: dict[str, object]) -> None:
    with pytest.raises(FormatError, match="does not fit its field"):
        format.serialise(File(replace(HEADER, **wrong), None, ()))


def test_a_side_segment_beyond_the_limit_is_refused_by_its_length() -> None:
    whole = format.serialise(File(HEADER, b"alpha", ()))
    head = whole[: whole.index(b"alpha") - 1]
    claims = b"\x80\x80\x80\x80\x04", b"\x81\x80\x80\x80\x04"  # 2**30 bytes, and one more
    with pytest.raises(FormatError, match="cut off"):
        format.parse(head + claims[0] + b"alpha")
    with pytest.raises(FormatError, match="side segment is too long"):
        format.parse(head + claims[1] + b"alpha")


def test_a_segment_without_units_is_refused_even_if_its_checksum_is_right() -> None:
    data = format.serialise(File(HEADER, None, (Segment(2, b"latents"), Segment(0, b"more"))))
    for salvage in (False, True):
        with pytest.raises(FormatError, match="without coding units"):
            format.parse(data, salvage)


# Entropy


def test_a_latent_out_of_range_is_refused(model: Model) -> None:
    tables = tables_of(model)
    escape = np.array([2 * tables.radius[7]], np.int32)
    for length, fits in ((MAX_ESCAPE_CLASS, True), (MAX_ESCAPE_CLASS + 1, False), (ESCAPE_CLASSES - 1, False)):
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(escape, tables.models[7])
        coder.encode(np.array([length], np.int32), constriction.stream.model.Uniform(ESCAPE_CLASSES))
        reader = Reader(tables, coder.get_compressed().astype("<u4").tobytes())
        index = np.array([7], np.uint8)
        if fits:
            assert 1 << length <= reader.take(index)[0] < 1 << length + 1
        else:
            with pytest.raises(FormatError, match="out of range"):
                reader.take(index)


# Codec: models of one size


@pytest.mark.slow
def test_faces_in_files_with_a_header_meet_every_target(face: np.ndarray, face64: Model) -> None:
    for target in ({"rate": 500}, {"max_bytes": 300}, {"bpp": 0.5}, {"psnr": 30.0}):
        done = codec.compress_picture(face, model=face64, measure=True, **target)
        file = format.parse(done.data)
        got = eocodec.decompress(done.data)
        assert file.header.model == face64.id and psnr(face, got) == done.psnr
        assert done.bits_per_pixel == 8 * len(done.data) / 4096
        assert len(done.data) <= target.get("max_bytes", target.get("bpp", 99) * 512)
        assert done.psnr >= target.get("psnr", 0)
        assert abs(done.rate - target.get("rate", done.rate)) < 0.02


@pytest.mark.slow
def test_any_picture_is_cut_and_scaled_to_a_face_on_request(samples: dict[str, np.ndarray], face64: Model) -> None:
    portrait = samples["rocket"][:200, :301]
    alpha = np.broadcast_to(np.linspace(0, 255, 301).astype(np.uint8), (200, 301))
    square = Image.fromarray(portrait[:, 50:250]).resize((64, 64), Image.Resampling.LANCZOS)
    got = codec.decode_file(eocodec.compress(portrait, psnr=30, model=face64, resize=True))
    assert got.rgb.shape == (64, 64, 3) and psnr(np.asarray(square), got.rgb) >= 30 and got.alpha is None
    got = codec.decode_file(eocodec.compress(np.dstack([portrait, alpha]), 500, model=face64, resize=True))
    want = Image.fromarray(np.ascontiguousarray(alpha[:, 50:250])).resize((64, 64), Image.Resampling.LANCZOS)
    assert got.alpha is not None and np.array_equal(got.alpha, np.asarray(want))
    with pytest.raises(EocodecError, match="64x64"):
        eocodec.compress(portrait, model=face64)
    assert eocodec.decompress(eocodec.compress(portrait, 5, resize=True)).shape == portrait.shape  # photo takes any


def test_forms_that_a_model_does_not_have_are_refused(face: np.ndarray, face64: Model) -> None:
    with pytest.raises(EocodecError, match="no tiny form"):
        eocodec.compress(face, tiny=True, model="photo")
    with pytest.raises(EocodecError, match="cannot hold transparency"):
        eocodec.compress(np.dstack([face, face[..., :1]]), tiny=True)
    with pytest.raises(EocodecError, match="no embedded stream"):
        eocodec.compress(face, progressive=True, model=face64)
    with pytest.raises(EocodecError, match="cannot be progressive"):
        eocodec.compress(face, progressive=True, tiny=True)
    with pytest.raises(EocodecError, match="keeps the noise"):
        eocodec.compress(face, lossless=True, denoise=10)


@pytest.mark.parametrize("target", [{"bpp": 0}, {"max_bytes": -1}, {"psnr": float("nan")}, {"bpp": float("inf")}])
def test_targets_that_are_no_positive_number_are_refused(target: dict[str, float], face: np.ndarray) -> None:
    with pytest.raises(EocodecError, match="must be a positive number"):
        eocodec.compress(face, **target)


# Codec: embedded streams


@pytest.mark.slow
def test_noise_reaches_its_quality_although_it_needs_more_than_photographs() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    for target in (20, 38):
        done = codec.compress_picture(noise, psnr=target, progressive=True, measure=True)
        assert done.psnr is not None and done.psnr >= target and done.tries > 1
        assert psnr(noise, eocodec.decompress(done.data)) == done.psnr


@pytest.mark.slow
def test_a_stream_that_is_whole_is_not_coded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams end some bytes after the depth that was asked for, which is all of a picture as small as this."""
    reached = []
    encode = embedded.encode

    def counted(*arguments: object) -> embedded.Stream:
        stream = encode(*arguments)  # type: ignore[arg-type]
        reached.append(stream.marks[-1].depth)
        return stream

    monkeypatch.setattr(embedded, "encode", counted)
    noise = np.random.default_rng(5).integers(0, 256, (2, 2, 3), np.uint8)
    with pytest.raises(EocodecError, match="out of reach"):
        codec.compress_picture(noise, psnr=52, progressive=True)
    assert reached == [embedded.LAYERS]


# Codec: checking what was written


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"rate": 40},
        {"psnr": 30},
        {"rate": 40, "progressive": True},
        {"lossless": True},
        {"tiny": True, "max_bytes": 60},
    ],
    ids=["ordinary", "searched", "progressive", "lossless", "tiny"],
)
def test_files_are_verified_by_decoding_them(
    options: dict[str, object], face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [face] if options.get("tiny") else [face, face[..., 0], np.dstack([face, face[..., :1]])]
    for picture in pictures:
        plain = codec.compress_picture(picture, **options)
        assert codec.compress_picture(picture, verify=True, **options).data == plain.data
    decode = codec.decode_file
    monkeypatch.setattr(codec, "decode_file", lambda *a: replace(decode(*a), rgb=decode(*a).rgb ^ 1))
    for picture in pictures:
        with pytest.raises(EocodecError, match="this is a fault of the program"):
            codec.compress_picture(picture, verify=True, **options)


def test_lost_transparency_does_not_pass_the_verification(face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = codec.decode_file
    for alpha in (None, face[..., 1]):
        monkeypatch.setattr(codec, "decode_file", lambda *a, alpha=alpha: replace(decode(*a), alpha=alpha))
        with pytest.raises(EocodecError, match="does not decode to what was encoded"):
            codec.compress_picture(np.dstack([face, face[..., :1]]), 40, verify=True)


# Codec: decoding and cutting


def test_a_tiny_file_needs_its_own_model_and_room(face: np.ndarray, face64: Model) -> None:
    data = eocodec.compress(face, max_bytes=40, tiny=True)
    assert np.array_equal(eocodec.decompress(data, face64), eocodec.decompress(data))
    with pytest.raises(FormatError, match="needs model number 1, which is not it"):
        eocodec.decompress(data, "photo")
    unknown = format.serialise_tiny(replace(format.parse_tiny(data), number=3))
    with pytest.raises(FormatError, match="needs model number 3, which is not installed"):
        eocodec.decompress(unknown)
    assert codec.decode_file(data, max_pixels=4096).complete
    with pytest.raises(LimitError, match="64x64 pixels, more than the limit of 4095"):
        codec.decode_file(data, max_pixels=4095)


def test_cuts_that_make_no_sense_are_refused(face: np.ndarray) -> None:
    with pytest.raises(EocodecError, match="tiny file cannot be cut"):
        eocodec.truncate(eocodec.compress(face, max_bytes=40, tiny=True), max_bytes=20)
    data = eocodec.compress(face, 100)
    for latents in (0, 0.99, float("nan")):
        with pytest.raises(EocodecError, match="latents must be at least 1"):
            eocodec.truncate(data, latents=latents)
