"""Laws of every form of file and of every kind of model, written once."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SAMPLES
from PIL import Image
from sheets import small

from eocodec import codec, format
from eocodec.coding import registry
from eocodec.coding.base import Coded, Coding, Job
from eocodec.coding.describe import describe
from eocodec.coding.page import PageJob
from eocodec.coding.symbols import symbols
from eocodec.errors import EocodecError
from eocodec.image import Picture, as_picture
from eocodec.metrics import psnr
from eocodec.model.library import Library, load_model, shipped_models
from eocodec.model.tiles import tiles


@dataclass(frozen=True)
class Form:
    """A form, the model that has it, and what may be aimed at."""

    coding: Coding
    model: str
    limit: int | None  # bytes
    quality: float | None  # dB


FORMS = {
    "ordinary": Form(registry.ORDINARY, "photo", 500, 30),
    "embedded": Form(registry.EMBEDDED, "photo", 500, 30),
    "lossless": Form(registry.LOSSLESS, "photo", None, None),
    "page": Form(registry.PAGE, "photo", 5000, 34),
    "flat": Form(registry.FLAT, "face64", 150, 24),
    "tiny": Form(registry.TINY, "face64", 60, 24),
}


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in ("embedded", "page") else []) for n in FORMS],
    scope="module",
)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture(scope="module")
def picture(form: Form) -> Picture:
    if form.coding is registry.PAGE:
        return as_picture(small())
    return as_picture(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))


@pytest.fixture(scope="module")
def job(form: Form, picture: Picture) -> Job:
    return form.coding.open(load_model(form.model), picture)


@pytest.fixture(scope="module")
def coded(form: Form, job: Job) -> Coded:
    return job.at(load_model(form.model).any_manifest.step_of(60))


def test_all_forms_are_tried_here() -> None:
    assert {id(f.coding) for f in FORMS.values()} == {id(c) for c in registry.CODINGS}


def test_a_file_is_of_the_form_that_made_it(form: Form, coded: Coded) -> None:
    file = format.from_bytes(format.to_bytes(coded.file))
    assert file == coded.file
    manifest = load_model(form.model).any_manifest
    assert registry.coding_of(file, manifest) is form.coding
    assert [c.holds(file, manifest) for c in registry.CODINGS].index(True) == registry.CODINGS.index(form.coding)


def test_a_decoder_gives_what_the_encoder_expects(form: Form, job: Job, coded: Coded) -> None:
    data = format.to_bytes(coded.file)
    decoded = codec.decode_file(data)
    expected = job.expected(coded.file)
    assert decoded.complete and np.array_equal(decoded.rgb, expected)
    assert job.quality(coded.file) == psnr(job.picture.rgb, expected)
    assert np.array_equal(symbols(data), form.coding.symbols(job.model, coded.file))


def test_c_is_told_alike_by_encoder_and_description(form: Form, job: Job, coded: Coded) -> None:
    data = format.to_bytes(coded.file)
    told = describe(data)
    assert told["bytes"] == len(data) and told["model"] == form.model and told["complete"]
    assert told["rate"] == pytest.approx(coded.rate, rel=0.02)
    assert (told["width"], told["height"]) == (job.width, job.height)


def test_sizes_are_not_exceeded_and_qualities_are_reached(form: Form, job: Job) -> None:
    for target, aim in ((form.limit, job.fitting), (form.quality, job.reaching)):
        if target is None:
            with pytest.raises(EocodecError, match="no rate, bpp, bytes or psnr to choose"):
                aim(100)
            continue
        found = aim(target)  # type: ignore[arg-type]
        if aim == job.fitting:
            assert 0.8 * target <= len(format.to_bytes(found.file)) <= target
        else:
            assert target <= job.quality(found.file)
            # On a page what is exact around the photographs does not count.
            counted = job.reached(job.expected(found.file)) if isinstance(job, PageJob) else job.quality(found.file)
            assert target <= counted < target + 1
        assert found.tries >= 1


def test_a_cut_is_smaller_and_still_of_its_form(form: Form, job: Job, coded: Coded) -> None:
    size = len(format.to_bytes(coded.file))
    library = Library()
    if form.coding is registry.TINY:
        with pytest.raises(EocodecError, match="cannot be cut"):
            form.coding.cut(coded.file, library, max_bytes=size - 1)
        return
    cut = form.coding.cut(coded.file, library, max_bytes=size - 1)
    data = format.to_bytes(cut)
    assert len(data) < size and form.coding.holds(cut, load_model(form.model).any_manifest)
    assert codec.decode_file(data).rgb.shape == job.picture.rgb.shape
    with pytest.raises(EocodecError, match="its smallest form has"):
        form.coding.cut(coded.file, library, max_bytes=3)


def test_verifying_works_alike_and_finds_what_differs(
    form: Form, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {
        id(registry.EMBEDDED): {"progressive": True, "rate": 20},
        id(registry.LOSSLESS): {"lossless": True},
        id(registry.TINY): {"tiny": True, "rate": 60},
    }
    options = {"model": form.model, **asked.get(id(form.coding), {"rate": 20})}
    plain = codec.compress_picture(picture, **options)  # type: ignore[arg-type]
    proven = codec.compress_picture(picture, verify=True, **options)  # type: ignore[arg-type]
    assert plain == proven and proven.psnr is None
    decode = codec.decode_file
    wrong: Callable[..., codec.Decoded] = lambda *a: replace(decode(*a), rgb=decode(*a).rgb ^ 1)  # noqa: E731
    monkeypatch.setattr(codec, "decode_file", wrong)
    with pytest.raises(EocodecError, match="does not decode to what was encoded"):
        codec.compress_picture(picture, verify=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", shipped_models())
def test_every_kind_of_model_answers(name: str) -> None:
    model = load_model(name)
    manifest = model.any_manifest
    steps = [manifest.step_of(c) for c in (1, 7.5, 96, manifest.block)]
    assert steps == sorted(steps, reverse=True)
    assert [manifest.rate_of(s) for s in steps] == pytest.approx([1, 7.5, 96, manifest.block], rel=1e-6)
    assert manifest.rate_of(1e9) == 1 and manifest.rate_of(1e-9) == manifest.block
    for wrong in (0.5, manifest.block + 1, float("nan")):
        with pytest.raises(EocodecError, match=f"from 1 to {manifest.block}"):
            manifest.step_of(wrong)
    spectrum = manifest.spectrum
    assert spectrum.count.sum() == manifest.block == model.block
    ranks, entropies = spectrum.curve()
    assert ranks == sorted(set(ranks)) and entropies == sorted(entropies, reverse=True)
    assert ranks[0] >= 1 and ranks[-1] <= manifest.block
    fine, coarse = manifest.decoder_step(1 / 255), manifest.decoder_step(200 / 255)
    assert fine < 1e-3 and coarse == 200 / 255
    assert model.denoising_methods[-1] == "drop"
    assert (manifest.edge is None) == (model.size is None)


SIDES = st.integers(1, 400)


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(20, 90), st.integers(0, 40), st.sampled_from([0, 4000, 20000, 1 << 20]), st.booleans())
def test_tiles_cover_every_pixel_once_and_stay_inside(
    width: int, height: int, edge: int, halo: int, whole: int, strips: bool
) -> None:
    covered = np.zeros((height, width), int)
    for t in tiles(width, height, edge, halo, whole, strips):
        covered[t.rows, t.columns] += 1
        for inner, outer, size in ((t.rows, t.outer_rows, height), (t.columns, t.outer_columns, width)):
            assert outer.start == max(0, inner.start - halo) and outer.stop == min(size, inner.stop + halo)
    assert (covered == 1).all()


@pytest.mark.parametrize("size", [(2048, 1536), (1536, 2048), (1792, 1280), (4000, 3008), (10000, 320)])
def test_strips_are_taken_where_they_are_less_work_and_stay_within_the_limit(size: tuple[int, int]) -> None:
    def work(strips: bool) -> list[int]:
        found = tiles(*size, 1024, 128, 1 << 21, strips)
        return [
            len(range(*t.outer_rows.indices(1 << 20))) * len(range(*t.outer_columns.indices(1 << 20))) for t in found
        ]

    assert sum(work(True)) <= sum(work(False)) and max(work(True)) <= 1 << 21
    assert (sum(work(True)) < sum(work(False))) == (size != (4000, 3008))
