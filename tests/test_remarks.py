"""What is said of a compressed picture, sentence by sentence, and what is not worth a word."""

import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES
from PIL import Image, ImageDraw

import eocodec
from eocodec.codec import compress_picture
from eocodec.errors import EocodecError, EocodecWarning
from eocodec.image import Picture, as_picture, read_picture
from eocodec.model.bundle import Model
from eocodec.remarks import CLEANED, NOTABLE, ROUNDED, Contents, denoise_remarks, remarks
from eocodec.results import Compressed


@cache
def _photo() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[60:140, 100:220]


def _said(picture: Picture, done: Compressed, source: int = 0, **changed: object) -> list[str]:
    return remarks(picture, done, source, **{"depth": None, "exact": False, "limited": False, **changed})  # type: ignore[arg-type]


@pytest.fixture
def photo() -> Picture:
    return as_picture(_photo())


@pytest.fixture
def lossy(photo: Picture, model: Model) -> Compressed:
    return compress_picture(photo, 60, model=model)


@pytest.fixture
def exact(photo: Picture, model: Model) -> Compressed:
    return compress_picture(photo, lossless=True, model=model)


def test_an_ordinary_photograph_is_nothing_to_speak_of(photo: Picture, lossy: Compressed) -> None:
    assert _said(photo, lossy, len(lossy.data)) == []
    assert Contents.of(lossy.data) == Contents(alpha=0, exact=False, photographs=0)


def test_a_file_that_is_larger_than_its_source_is_told(photo: Picture, lossy: Compressed) -> None:
    source = len(lossy.data) - 1
    assert _said(photo, lossy, source) == [f"the file is larger than the input, which has {source} bytes"]
    assert _said(photo, lossy, 0) == []  # the size of a pipe is not known


@pytest.mark.parametrize(
    ("sigma", "limited", "said"),
    [
        (None, False, "it is kept exactly, which takes no more bytes than a lossy file"),
        (None, True, "it is kept exactly, as the limit allows"),
        (0.0, False, "it is kept exactly, which takes no more bytes than a lossy file"),
        (3.0, True, "what it is without the noise is kept exactly, as the limit allows"),
    ],
)
def test_an_exact_file_that_nobody_wanted_is_told(
    photo: Picture, exact: Compressed, sigma: float | None, limited: bool, said: str
) -> None:
    done = replace(exact, sigma=sigma)
    assert _said(photo, done, limited=limited) == [said]
    assert _said(photo, done, limited=limited, exact=True) == []
    assert Contents.of(done.data).exact


def test_photographs_of_a_page_are_counted(model: Model) -> None:
    page = Image.new("RGB", (560, 400), "white")
    draw = ImageDraw.Draw(page)
    for y in range(4, 400, 12):
        draw.text((4, y), "the quick brown fox jumps over the lazy dog " * 3, "black")
    photograph = Image.open(SAMPLES / "coffee.png").convert("RGB").crop((100, 80, 300, 240))
    for count, place in ((1, (40, 40)), (2, (320, 200))):
        page.paste(photograph, place)
        picture = as_picture(page)
        done = compress_picture(picture, 60, model=model)
        assert Contents.of(done.data).photographs == count
        told = "one photograph" if count == 1 else "2 photographs"
        assert _said(picture, done) == [
            f"it is kept as a page: all but {told} exactly, which takes fewer bytes than a lossy file"
        ]


def test_transparency_that_takes_a_good_part_is_told(lossy: Compressed, model: Model) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (80, 120, 1), np.uint8)
    seen = as_picture(np.dstack([_photo(), noisy]))
    done = compress_picture(seen, 60, model=model)
    alpha = Contents.of(done.data).alpha
    assert alpha > NOTABLE * len(done.data)
    assert _said(seen, done) == [f"transparency takes {alpha} of the {len(done.data)} bytes"]
    cut = compress_picture(seen, 60, progressive=True, model=model)
    first = Contents.of(cut.data).alpha
    assert Contents.of(cut.data).progressive and _said(seen, cut) == [
        f"transparency takes {first} of the {len(cut.data)} bytes and comes first: no shorter prefix shows anything"
    ]
    with pytest.raises(EocodecError, match="cannot be cut"):
        eocodec.truncate(cut.data, max_bytes=first)
    assert _said(replace(seen, alpha=None), done) == []  # none of its own, so nothing that one could leave out
    some = as_picture(np.dstack([_photo(), np.where(np.arange(120) < 60, 0, 255).astype(np.uint8)[None].repeat(80, 0)]))
    fine = compress_picture(some, 300, model=model)
    assert 0 < Contents.of(fine.data).alpha <= NOTABLE * len(fine.data) and _said(some, fine) == []


def test_the_depth_that_was_chosen_is_told_unless_it_was_wanted(model: Model, tmp_path: Path) -> None:
    Image.fromarray(_photo()[..., 0].astype(np.uint16) * 257 + 3).save(tmp_path / "deep.png")
    read = read_picture(tmp_path / "deep.png")
    kept = compress_picture(read.at_depth(16), 60, model=model)
    assert kept.depth == 16 and read.depth == 8
    told = "it is kept at 16 bits a sample; a depth of 8 makes a file of it that more readers know"
    assert _said(read, kept) == [told]
    assert _said(read, kept, depth=16) == _said(read.at_depth(16), kept) == []
    rounded = compress_picture(read, 60, model=model, tune="eye")
    assert rounded.depth == 8 and _said(read, rounded) == [
        "its 16 bits a sample are rounded to 8, as this form of file or these options need"
    ]
    assert _said(read, rounded, depth=8) == []


def test_what_the_form_of_file_could_not_do_is_passed_on(photo: Picture, lossy: Compressed) -> None:
    assert _said(replace(photo, notes=("unusual",)), replace(lossy, notes=("no page",))) == ["unusual", "no page"]


def test_tiny_files_have_no_contents_to_speak_of() -> None:
    face = np.asarray(Image.open(SAMPLES / "astronaut.png").convert("RGB").resize((64, 64)))
    assert Contents.of(eocodec.compress(face, 8, model="face64", tiny=True)) == Contents(0, False, 0)


def test_what_is_on_eight_bits_is_not_said_of_sixteen(photo: Picture, lossy: Compressed) -> None:
    unusual = replace(photo, notes=("unusual", "rounded"), rounding=("rounded",))
    assert _said(unusual, lossy) == ["unusual", "rounded"]
    assert _said(unusual, replace(lossy, depth=16), depth=16) == ["unusual"]


def test_an_exact_file_lacks_nothing_that_could_be_told(model: Model) -> None:
    twelve = np.zeros((40, 40, 3), np.uint16)
    twelve[8:20, 8:20] = 4000
    for lossless in (False, True):
        done = compress_picture(twelve, lossless=lossless, model=model)
        assert Contents.of(done.data).exact and done.notes == ()
    noisy = np.random.default_rng(0).integers(0, 4096, (40, 40, 3)).astype(np.uint16)
    done = compress_picture(noisy, 12, model=model)
    assert not Contents.of(done.data).exact and len(done.notes) == 1


def _deep() -> np.ndarray:
    return _photo().astype(np.uint16) * 257 + np.arange(120, dtype=np.uint16)[:, None] % 3


@pytest.mark.parametrize("options", [{"denoise": 3}, {"progressive": True}, {"focus": (0, 0, 20, 20)}, {"tune": "eye"}])
def test_the_library_warns_once_where_it_rounds_16_bits(options: dict[str, object], model: Model) -> None:
    with pytest.warns(EocodecWarning) as told:
        eocodec.compress(_deep(), 20, model=model, **options)  # type: ignore[arg-type]
    assert [str(w.message) for w in told] == [f"the picture: {ROUNDED}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", EocodecWarning)
        eocodec.compress(_deep(), 20, model=model, depth=8, **options)  # type: ignore[arg-type]
        eocodec.compress(_photo(), 20, model=model, **options)  # type: ignore[arg-type]


def test_denoising_16_bits_in_the_library_warns_once(model: Model) -> None:
    with pytest.warns(EocodecWarning) as told:
        assert eocodec.denoise(_deep(), sigma=3, model=model).dtype == np.uint8
    assert [str(w.message) for w in told] == [f"the picture: {CLEANED}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", EocodecWarning)
        eocodec.denoise(_photo(), sigma=3, model=model)


def test_a_cut_that_leaves_one_colour_warns(lossy: Compressed) -> None:
    with pytest.warns(EocodecWarning, match="nothing but one colour is left of it"):
        cut = eocodec.truncate(lossy.data, max_bytes=60)
    assert np.ptp(eocodec.decompress(cut).reshape(-1, 3), axis=0).max() <= 8, "next to one colour"
    with warnings.catch_warnings():
        warnings.simplefilter("error", EocodecWarning)
        eocodec.truncate(lossy.data, max_bytes=len(lossy.data))
        eocodec.truncate(cut, max_bytes=60)  # which loses nothing more


@pytest.mark.parametrize(("deep", "said"), [(False, "nothing was changed"), (True, "none was removed")])
def test_nothing_was_changed_only_where_no_bits_were_lost(photo: Picture, deep: bool, said: str) -> None:
    told = denoise_remarks(replace(photo, deep=deep), False, ".png", 8, estimated=True)
    assert told == [f"no noise was found that cannot be texture, and {said}; a sigma that is given removes it"]


def test_16_bits_that_are_rounded_without_noise_are_told(photo: Picture) -> None:
    deep = replace(photo, deep=True, wide=_deep(), exact=True)
    assert CLEANED in denoise_remarks(deep, False, ".png", 8, estimated=True)
    assert not any("rounded" in note for note in denoise_remarks(deep, False, ".png", 16, estimated=True))
