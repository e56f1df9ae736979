"""The laws that hold for every form of file, each written once: ordinary, embedded, lossless, page, flat, tiny.

A form is a row of `FORMS`: a model, the options that make such a file, and what it promises. A new form of file is one
more row here; what only one form promises stands in its own module of tests.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from paths import SAMPLES
from PIL import Image
from sheets import small

import eocodec
from eocodec import codec, format
from eocodec.coding.forms import form_of
from eocodec.coding.symbols import symbols
from eocodec.errors import EocodecError, FormatError
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model
from eocodec.pieces import LENGTH

Bytes = npt.NDArray[np.uint8]
SIZES = [(1, 1), (1, 2), (2, 1), (3, 17), (17, 3), (31, 33), (32, 32), (64, 65), (65, 1), (2, 130)]
SETTINGS = [(1, "off"), (2, "basic"), (4, "all")]  # threads and graph optimisation


@dataclass(frozen=True)
class Form:
    """A form of file and its promises.

    Arguments:
        options: what `compress` is called with.
        model: that makes such files.
        floor: PSNR in dB that the best file of this form reaches on any picture, `finest` being its options.
        side: of the only pictures that the model takes, 0 if it takes any.
        alpha: the form holds transparency.
        checked: damage is detected; else any bytes are some picture.
        cut: `truncate` makes smaller files; `any_byte`: at every byte and not between segments only.
        paged: the file is of a page, which small pictures are not; `truncate` cuts all of its photographs alike.
    """

    name: str
    options: dict[str, Any]
    finest: dict[str, Any]
    floor: float
    model: str = "photo"
    side: int = 0
    alpha: bool = True
    checked: bool = True
    cut: bool = True
    any_byte: bool = False
    paged: bool = False

    def picture(self) -> Bytes:
        """A picture that the form takes."""
        if self.paged:
            return small()
        return _face() if self.side else _photo()

    def compress(self, picture: Bytes, **changes: Any) -> bytes:
        """A file of this form."""
        return eocodec.compress(picture, model=self.model, **{**self.options, **changes})


FORMS = [
    Form("ordinary", {"rate": 120}, {"rate": 768}, 35),
    Form("embedded", {"rate": 400, "progressive": True}, {"rate": 768, "progressive": True}, 35, any_byte=True),
    Form("lossless", {"lossless": True}, {"lossless": True}, np.inf),
    Form("page", {"rate": 120}, {"rate": 400}, 35, paged=True),
    Form("flat", {"rate": 400}, {"rate": 12288}, 40, model="face64", side=64),
    Form(
        "tiny", {"rate": 400, "tiny": True}, {"rate": 12288, "tiny": True}, 38,
        model="face64", side=64, alpha=False, checked=False, cut=False,
    ),
]  # fmt: skip
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
costly_slowly = pytest.mark.parametrize(  # where a picture is coded many times: of these forms each takes its time
    "form",
    [pytest.param(f, marks=[pytest.mark.slow] if f.any_byte or f.paged else []) for f in FORMS],
    ids=lambda f: f.name,
)
checked_forms = pytest.mark.parametrize("form", [f for f in FORMS if f.checked], ids=lambda f: f.name)


@cache
def _photo() -> Bytes:
    return np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[60:122, 130:255]


@cache
def _face() -> Bytes:
    return np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))


@cache
def _file(name: str) -> bytes:
    form = next(f for f in FORMS if f.name == name)
    return form.compress(form.picture())


@cache
def _models(name: str) -> list[Model]:
    return [load_model(name, threads, optimisation, "cpu") for threads, optimisation in SETTINGS]


def _ends(form: Form, data: bytes, pieces: int) -> list[int]:
    """Lengths at which a file may be cut and is a better picture each time, the last one being the whole."""
    if form.any_byte:
        return [int(n) for n in np.linspace(24, len(data) - 1, pieces)] + [len(data)]
    return format.segment_ends(format.parse(data))


@every_form
def test_the_file_is_of_the_form_that_is_tried_here(form: Form) -> None:
    assert form_of(format.from_bytes(_file(form.name)), load_model(form.model).any_manifest) == form.name.upper()


# Round trip


@costly_slowly
def test_a_picture_comes_back(form: Form) -> None:
    picture = form.picture()
    got = eocodec.decompress(eocodec.compress(picture, model=form.model, **form.finest))
    assert got.shape == picture.shape and got.dtype == np.uint8
    assert psnr(picture, got) >= form.floor


@pytest.mark.parametrize(
    "form",
    # Of an embedded stream every picture takes a second, as small as it may be.
    [pytest.param(f, marks=[pytest.mark.slow] if f.any_byte else []) for f in FORMS if not (f.side or f.paged)],
    ids=lambda f: f.name,
)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_any_size_round_trips(form: Form, size: tuple[int, int]) -> None:
    picture = np.resize(_photo(), (400, 500, 3))[100 : 100 + size[0], 200 : 200 + size[1]]
    for options in (form.options, form.finest):
        got = eocodec.decompress(eocodec.compress(picture, model=form.model, **options))
        assert got.shape == picture.shape
    assert psnr(picture, got) >= form.floor


@pytest.mark.parametrize("form", [f for f in FORMS if f.side], ids=lambda f: f.name)
def test_other_sizes_are_refused_by_models_of_one_size(form: Form) -> None:
    with pytest.raises(EocodecError, match=f"{form.side}x{form.side}"):
        form.compress(_photo())


@every_form
def test_grey_pictures_come_back_grey(form: Form) -> None:
    grey = form.picture()[..., 1]
    data = form.compress(grey)
    decoded = codec.decode_file(data)
    assert decoded.grey and (decoded.rgb == decoded.rgb[..., :1]).all()
    assert psnr(grey, decoded.rgb[..., 0]) > 28
    assert len(data) < len(_file(form.name))


@costly_slowly
def test_alpha_is_lossless_and_survives_truncation(form: Form) -> None:
    picture = form.picture()
    alpha = np.random.default_rng(1).integers(0, 256, picture.shape[:2], np.uint8)
    alpha[: -len(alpha) // 6] = 255  # nothing takes longer to pack than noise
    if not form.alpha:
        with pytest.raises(EocodecError, match="cannot hold transparency"):
            form.compress(np.dstack([picture, alpha]))
        return
    data = form.compress(np.dstack([picture, alpha]))
    assert (eocodec.decompress(data)[..., 3] == alpha).all()
    for cut in (format.segment_ends(format.parse(data))[0] + 600, len(data) - 100):
        assert (eocodec.decompress(eocodec.truncate(data, max_bytes=cut))[..., 3] == alpha).all()


@costly_slowly
def test_the_same_picture_gives_the_same_file_however_it_is_held(form: Form) -> None:
    picture = form.picture()
    for held in (Image.fromarray(picture), picture / 255.0, np.asfortranarray(picture)):
        assert form.compress(held) == _file(form.name)


@costly_slowly
def test_a_file_passes_the_check_that_decodes_it(form: Form) -> None:
    done = codec.compress_picture(form.picture(), model=form.model, verify=True, measure=True, **form.options)
    assert done.data == _file(form.name)
    assert done.psnr == psnr(form.picture(), eocodec.decompress(done.data))


# Exactness


@pytest.mark.slow
@every_form
def test_symbols_do_not_depend_on_threads_or_graph_optimisation(form: Form) -> None:
    data = _file(form.name)
    found = [symbols(data, model) for model in _models(form.model)]
    assert len(np.unique(found[0])) > 10
    assert all(np.array_equal(found[0], other) for other in found[1:])


# Prefixes


@costly_slowly
def test_every_prefix_is_a_picture_and_more_bytes_are_a_better_one(form: Form) -> None:
    picture, data = form.picture(), _file(form.name)
    if not form.checked:  # nothing tells that bytes are missing
        for end in (2, 9, len(data) // 2, len(data)):
            assert codec.decode_file(data[:end]).rgb.shape == picture.shape
        return
    ends = _ends(form, data, 5)
    qualities = []
    for end in ends:
        decoded = codec.decode_file(data[:end])
        assert decoded.rgb.shape == picture.shape and not decoded.damaged
        assert decoded.complete or end < len(data)
        qualities.append(psnr(picture, decoded.rgb))
    assert all(b > a - 0.1 for a, b in pairwise(qualities))
    assert qualities[-1] > qualities[0] + 8
    with pytest.raises(FormatError, match=r"cut off|not an \.eoc file"):
        eocodec.decompress(data[: min(ends[0], 12) - 1])


@pytest.mark.parametrize("form", [f for f in FORMS if f.checked and not f.any_byte], ids=lambda f: f.name)
def test_a_cut_inside_a_segment_loses_that_segment_only(form: Form) -> None:
    data = _file(form.name)
    ends = _ends(form, data, 0)
    k = max(0, len(ends) - 2)
    between = (ends[k] + ends[k + 1]) // 2
    decoded = codec.decode_file(data[:between])
    assert not decoded.complete and np.array_equal(decoded.rgb, codec.decode_file(data[: ends[k]]).rgb)


@costly_slowly
def test_truncated_file_decodes_at_lower_rate(form: Form) -> None:
    picture, data = form.picture(), _file(form.name)
    if not form.cut:
        with pytest.raises(EocodecError, match="cannot be cut"):
            eocodec.truncate(data, max_bytes=len(data) - 1)
        return
    qualities = []
    for end in _ends(form, data, 5):
        for size in (end, end + 3):
            cut = eocodec.truncate(data, max_bytes=size)
            assert len(cut) <= size
            if not form.paged:
                assert size - (4 if form.any_byte else 3) <= len(cut)
                assert cut[:-4] == data[: len(cut) - 4]
        qualities.append(psnr(picture, eocodec.decompress(cut)))
    assert all(b > a - 0.1 for a, b in pairwise(qualities)) and qualities[-1] > qualities[0] + 8
    with pytest.raises(EocodecError, match="smallest form has"):
        eocodec.truncate(data, max_bytes=4)
    with pytest.raises(EocodecError, match="one of rate, latents and bytes"):
        eocodec.truncate(data)


# Damage


def _flipped(data: bytes, bit: int) -> bytes:
    spoilt = bytearray(data)
    spoilt[bit // 8] ^= 1 << bit % 8
    return bytes(spoilt)


@pytest.mark.parametrize(
    "form",
    [pytest.param(f, marks=[pytest.mark.slow] if f.any_byte else []) for f in FORMS if f.checked],
    ids=lambda f: f.name,
)
def test_no_flipped_bit_goes_unnoticed(form: Form) -> None:
    data = _file(form.name)
    random = np.random.default_rng(2)
    bits = [*range(0, 8 * 20, 3), *random.integers(8 * 20, 8 * len(data), 40).tolist()]
    refused = 0
    for bit in bits:
        try:
            decoded = codec.decode_file(_flipped(data, bit))
        except FormatError:
            refused += 1
            continue
        # What is left is a length that makes the file look cut, or the end of an embedded stream.
        assert not decoded.complete, bit
    assert refused > len(bits) // 2


@checked_forms
def test_damage_is_refused_and_salvaged(form: Form) -> None:
    picture, data = form.picture(), _file(form.name)
    ends = format.segment_ends(format.parse(data))
    at = 15 + LENGTH + 4 + 100 if form.any_byte else ends[max(0, len(ends) - 2)] + 20
    spoilt = _flipped(data, 8 * at + 2)
    with pytest.raises(FormatError, match=r"checksum of (segment|piece) \d"):
        eocodec.decompress(spoilt)
    saved = codec.decode_file(spoilt, salvage=True)
    assert saved.damaged and not saved.complete and saved.rgb.shape == picture.shape
    whole = codec.decode_file(data, salvage=True)
    assert not whole.damaged and whole.complete
    if len(ends) > 2 or form.any_byte:
        assert psnr(picture, saved.rgb) > 18


@costly_slowly
def test_bytes_that_do_not_belong_to_a_stream_are_a_picture_or_a_sentence(form: Form) -> None:
    """Payloads of noise under checksums that match, for every form: never anything but a picture or a FormatError."""
    data, random = _file(form.name), np.random.default_rng(5)
    decoded = 0
    proves = form.floor == np.inf  # a lossless file proves its pixels
    for attempt in range(80):
        if attempt >= 12 and (decoded or proves):
            break
        try:
            got = eocodec.decompress(_forged(form, data, random.bytes))
        except FormatError as e:
            assert str(e) and "\n" not in str(e)
            continue
        decoded += 1
        assert got.shape == form.picture().shape
    assert decoded or proves


def _forged(form: Form, data: bytes, noise: Callable[[int], bytes]) -> bytes:
    if not form.checked:
        return data[:2] + noise(len(data) - 2)
    file = format.parse(data)
    k = len(file.segments) // 2
    payload = file.segments[k].payload
    if form.paged:
        part = format.parse(payload)
        payload = format.serialise(replace(part, segments=(format.Segment(1, noise(90)),)))
    else:
        payload = noise(len(payload))
    segment = replace(file.segments[k], payload=payload)
    return format.serialise(replace(file, segments=(*file.segments[:k], segment, *file.segments[k + 1 :])))


@checked_forms
def test_a_file_of_another_model_is_refused_by_name(form: Form) -> None:
    file = format.parse(_file(form.name))
    other = format.serialise(replace(file, header=replace(file.header, model=b"\1\2\3\4")))
    with pytest.raises(FormatError, match="needs model 01020304"):
        eocodec.decompress(other)
    with pytest.raises(FormatError, match=f"not with {form.model}"):
        eocodec.decompress(other, form.model)


@every_form
def test_a_limit_of_pixels_is_kept(form: Form) -> None:
    height, width = form.picture().shape[:2]
    assert codec.decode_file(_file(form.name), max_pixels=height * width).rgb.shape == (height, width, 3)
    with pytest.raises(FormatError, match=f"more than the limit of {height * width - 1}"):
        codec.decode_file(_file(form.name), max_pixels=height * width - 1)
