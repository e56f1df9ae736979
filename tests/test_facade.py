"""The facade: what it takes when nothing is said, what excludes what, limits, cuts of the middle, and what it refuses.

Small pictures: what the forms do with pictures is tested in `test_laws.py`.
"""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import eocodec
from eocodec import codec, format
from eocodec.coding.ordinary import Ordinary
from eocodec.coding.registry import coding_of
from eocodec.errors import EocodecError, LimitError
from eocodec.image import Picture
from eocodec.metrics import psnr
from eocodec.model.bundle import Model

FLAGS = ("tiny", "resize", "progressive", "lossless")


@pytest.fixture(scope="module")
def small(chelsea: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(chelsea[90:122, 150:192])


@pytest.fixture(scope="module")
def face(chelsea: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(chelsea[60:124, 150:214])


def test_what_is_not_said_is_an_ordinary_file_of_96_latents_a_block(small: np.ndarray) -> None:
    data = eocodec.compress(small)
    assert data == eocodec.compress(small, 96.0) == codec.compress_picture(small).data
    file = format.parse(data)
    assert isinstance(coding_of(file), Ordinary) and file.header.model == eocodec.load_model("photo").id


@pytest.mark.parametrize("function", [codec.compress, codec.compress_picture])
def test_every_flag_is_off_unless_it_is_given(function: object) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert all(parameters[name].default is False for name in FLAGS)
    assert all(p.default is False for name, p in parameters.items() if name in ("measure", "verify"))


def test_tiny_files_are_of_the_model_for_faces(face: np.ndarray) -> None:
    data = eocodec.compress(face, max_bytes=24, tiny=True)
    assert format.is_tiny(data) and data == eocodec.compress(face, max_bytes=24, tiny=True, model="face64")
    decoded = codec.decode_file(data)
    assert decoded == replace(decoded, alpha=None, grey=False, complete=True, damaged=False, segments=1)
    with pytest.raises(EocodecError):
        eocodec.compress(face, 20, tiny=True, model="photo")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 3, "bpp": 1}, "only one"),
        ({"max_bytes": 900, "psnr": 30}, "only one"),
        ({"lossless": True, "tiny": True}, "lossless file has no"),
        ({"lossless": True, "progressive": True}, "lossless file has no"),
        ({"lossless": True, "rate": 9}, "lossless file has no"),
        ({"lossless": True, "denoise": 9}, "keeps the noise"),
        ({"rate": "much"}, "rate"),
        ({"psnr": True}, "psnr"),
        ({"rate": 0.5}, "from 1 to 768"),
        ({"bpp": 0}, "bpp"),
    ],
    ids=lambda o: "-".join(o) if isinstance(o, dict) else "",
)
def test_what_does_not_go_together_is_refused(small: np.ndarray, options: dict[str, object], said: str) -> None:
    with pytest.raises(EocodecError, match=said):
        eocodec.compress(small, **options)  # type: ignore[arg-type]


def test_sizes_and_qualities_are_those_of_the_file(small: np.ndarray) -> None:
    done = codec.compress_picture(small, 40, measure=True)
    assert done.bits_per_pixel == pytest.approx(8 * len(done.data) / (32 * 42)) and done.size == (32, 42)
    assert done.psnr == pytest.approx(psnr(small, eocodec.decompress(done.data)), abs=1e-6)
    plain = codec.compress_picture(small, 40)
    assert plain.psnr is None and plain.sigma is None and plain.data == done.data


def test_lossless_files_are_exact_and_of_the_finest_step(small: np.ndarray) -> None:
    data = eocodec.compress(small, lossless=True)
    assert (eocodec.decompress(data) == small).all()
    assert codec.compress_picture(small, lossless=True, verify=True).data == data


def test_noise_is_removed_before_the_picture_is_coded(small: np.ndarray) -> None:
    done = codec.compress_picture(small, 40, denoise=20)
    assert done.sigma == pytest.approx(20) and done.data != eocodec.compress(small, 40)


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (33, 33), (40, 57)], ids=str)
def test_the_middle_is_cut_out_and_scaled(size: tuple[int, int]) -> None:
    height, width = size
    values = np.random.default_rng(height).integers(0, 256, (height, width, 4), np.uint8)
    fitted = codec.fit(Picture(values[..., :3], values[..., 3]), 16)
    edge = min(size)
    top, left = (height - edge) // 2, (width - edge) // 2
    box = (left, top, left + edge, top + edge)
    for got, channels in ((fitted.rgb, values[..., :3]), (fitted.alpha, values[..., 3])):
        want = Image.fromarray(np.ascontiguousarray(channels)).crop(box).resize((16, 16), Image.Resampling.LANCZOS)
        assert got is not None and (got == np.asarray(want)).all()
    assert codec.fit(Picture(values[..., :3]), 16).alpha is None


def test_only_models_of_one_size_resize_and_only_on_request(chelsea: np.ndarray, face: np.ndarray) -> None:
    assert eocodec.compress(face, 20, resize=True) == eocodec.compress(face, 20)
    wide = chelsea[60:124, 100:200]
    square = codec.fit(Picture(wide), 64).rgb
    assert eocodec.compress(wide, 20, model="face64", resize=True) == eocodec.compress(square, 20, model="face64")
    with pytest.raises(EocodecError, match="resize"):
        eocodec.compress(wide, 20, model="face64")


def test_limits_of_pixels_are_exact(small: np.ndarray, face: np.ndarray) -> None:
    for data, pixels in ((eocodec.compress(small, 9), 32 * 42), (eocodec.compress(face, 9, tiny=True), 64 * 64)):
        whole = eocodec.decompress(data)
        assert (eocodec.decompress(data, max_pixels=pixels) == whole).all()
        for decode in (eocodec.decompress, codec.decode_file):
            with pytest.raises(LimitError, match=f"more than the limit of {pixels - 1}"):
                decode(data, max_pixels=pixels - 1)


def test_transparency_is_a_fourth_channel_where_there_is_any(small: np.ndarray) -> None:
    alpha = np.full(small.shape[:2], 255, np.uint8)
    alpha[:9] = 40
    data = eocodec.compress(np.dstack([small, alpha]), 20)
    assert (eocodec.decompress(data)[..., 3] == alpha).all()
    assert eocodec.decompress(eocodec.compress(small, 20)).shape == small.shape
    assert codec.decode_file(eocodec.compress(small, 20)).alpha is None


@pytest.mark.parametrize("wrong", ["colour", "alpha", "prefix"])
@pytest.mark.parametrize("transparent", [False, True])
def test_verifying_compares_colours_transparency_and_state(
    small: np.ndarray, monkeypatch: pytest.MonkeyPatch, wrong: str, transparent: bool
) -> None:
    picture = np.dstack([small, np.repeat(np.uint8([[9] * 20 + [255] * 22]), 32, 0)]) if transparent else small
    codec.compress_picture(picture, 30, verify=True)
    decode_file = codec.decode_file

    def spoilt(data: bytes, model: Model) -> eocodec.Decoded:
        decoded = decode_file(data, model)
        if wrong == "colour":
            return replace(decoded, rgb=decoded.rgb ^ 1)
        if wrong == "alpha":
            other = np.zeros(small.shape[:2], np.uint8) if decoded.alpha is None else decoded.alpha ^ 1
            return replace(decoded, alpha=other)
        return replace(decoded, complete=False)

    monkeypatch.setattr(codec, "decode_file", spoilt)
    with pytest.raises(EocodecError, match="does not decode"):
        codec.compress_picture(picture, 30, verify=True)
    codec.compress_picture(picture, 30)


def test_damage_is_refused_unless_salvage_is_requested(small: np.ndarray) -> None:
    data = bytearray(eocodec.compress(small, 200))
    data[-6] ^= 1
    with pytest.raises(EocodecError, match="damaged"):
        codec.decode_file(bytes(data))
    saved = codec.decode_file(bytes(data), salvage=True)
    assert saved.damaged and not codec.decode_file(eocodec.compress(small, 200)).damaged


@pytest.mark.parametrize("targets", [{}, {"rate": 9, "max_bytes": 900}, {"rate": 9, "latents": 9}])
def test_a_cut_has_exactly_one_target(small: np.ndarray, targets: dict[str, float]) -> None:
    with pytest.raises(EocodecError, match="give one of rate, latents and bytes"):
        eocodec.truncate(eocodec.compress(small, 40), **targets)  # type: ignore[arg-type]
    with pytest.raises(EocodecError, match="rate"):
        eocodec.truncate(eocodec.compress(small, 40), rate="much")  # type: ignore[arg-type]


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_of_a_cut_are_any_positive_number_as_those_of_a_new_file_are(
    small: np.ndarray, progressive: bool
) -> None:
    data = eocodec.compress(small, 400, progressive=progressive)
    size = len(data) - 20
    for value in (size + 0.5, np.float64(size), np.float32(size)):
        assert eocodec.truncate(data, max_bytes=value) == eocodec.truncate(data, max_bytes=size)  # type: ignore[arg-type]
    for wrong in (float("nan"), float("inf"), -5, 0):
        with pytest.raises(EocodecError, match="bytes must be a positive number"):
            eocodec.truncate(data, max_bytes=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_limit_beyond_all_files_is_one_that_every_file_keeps(small: np.ndarray, progressive: bool) -> None:
    data = eocodec.compress(small, progressive=progressive)
    assert eocodec.truncate(data, max_bytes=10**400) == data
    most = eocodec.compress(small, max_bytes=1 << 20, progressive=progressive)
    assert eocodec.compress(small, max_bytes=10**400, progressive=progressive) == most
    assert eocodec.compress(small, bpp=10**308, progressive=progressive) == most
    assert eocodec.decompress(data, max_pixels=10**400).shape == small.shape
    with pytest.raises(EocodecError, match="bytes must be a positive number"):
        eocodec.truncate(data, max_bytes=-(10**400))


@pytest.mark.parametrize("name", ["rate", "bpp", "psnr", "denoise"])
def test_whole_numbers_beyond_all_others_are_refused_in_one_sentence(small: np.ndarray, name: str) -> None:
    for number in (10**400, -(10**400)):
        with pytest.raises(EocodecError, match="is too large a number to compute with"):
            eocodec.compress(small, **{name: number})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sigma", "strength", "detail", "rate", "shifts"])
def test_so_are_they_as_options_of_denoising(small: np.ndarray, name: str) -> None:
    with pytest.raises(EocodecError, match="is too large a number to compute with"):
        eocodec.denoise(small, **{name: 10**400})  # type: ignore[arg-type]


def test_a_progressive_file_of_nothing_visible_is_small_whatever_it_is_to_reach(small: np.ndarray) -> None:
    unseen = np.dstack([small, np.zeros(small.shape[:2], np.uint8)])
    shortest = eocodec.compress(unseen, progressive=True)
    assert len(shortest) < 100 and not eocodec.decompress(shortest)[..., 3].any()
    for target in (20, 50, 80):
        assert eocodec.compress(unseen, progressive=True, psnr=target) == shortest


def test_cuts_are_prefixes_that_decode(small: np.ndarray) -> None:
    data = eocodec.compress(small, 400)
    cut = eocodec.truncate(data, max_bytes=len(data) - 1)
    assert len(cut) < len(data) and codec.decode_file(cut).rgb.shape == small.shape
