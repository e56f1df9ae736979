"""Maps of steps: regions of interest, masks, masking by contrast, and what cannot be asked for."""

from dataclasses import replace

import numpy as np
import pytest
from paths import bundle_of

import eocodec
from eocodec.coding.fineness import (
    LARGEST_OFFSET,
    UNTUNED,
    Fineness,
    blocks_of,
    focused,
    masking,
    offsets_of,
    pack_offsets,
    tuning_for,
    within,
)
from eocodec.coding.units import PHASES
from eocodec.errors import EocodecError, FormatError
from eocodec.format import Header
from eocodec.model.bundle import Model
from eocodec.model.library import load_model
from eocodec.steps import CONDITION_UNIT, STEP_UNIT, step_code

BLOCK = 32


def test_regions_are_finer_by_their_octaves() -> None:
    entries = focused([(40, 0, 50, 70), (0, 96, 10, 10, -0.5)], (128, 160), BLOCK)
    wanted = np.zeros((4, 5), np.int8)
    wanted[:3, 1:3] = -16  # pixels 40 to 90 lie in blocks 1 and 2
    wanted[3, 0] = 8
    assert (entries == wanted).all()
    assert (
        focused((40.0, 0.0, 50.0, 70.0, 1.0), (128, 160), BLOCK) == focused((40, 0, 50, 70), (128, 160), BLOCK)
    ).all()
    assert focused((-10, -10, 1000, 1000, 2), (128, 160), BLOCK).max() == -LARGEST_OFFSET


def test_of_regions_that_overlap_the_stronger_counts() -> None:
    entries = focused([(0, 0, 64, 32, 0.5), (32, 0, 64, 32, 1.5), (0, 0, 64, 32, 0.25)], (32, 96), BLOCK)
    assert entries.tolist() == [[-8, -24, -24]]


def test_a_mask_is_as_good_as_regions() -> None:
    mask = np.zeros((100, 131), np.uint8)
    mask[:40, 64:80] = 255
    assert (focused(mask, mask.shape, BLOCK) == focused((64, 0, 16, 40), mask.shape, BLOCK)).all()
    assert (focused(mask > 0, mask.shape, BLOCK) == focused(mask, mask.shape, BLOCK)).all()
    assert set(np.unique(focused(mask // 2, mask.shape, BLOCK))) == {-8, 0}


@pytest.mark.parametrize(
    "focus",
    [(1, 2, 3), (1, 2, 3, 4, 5, 6), (0, 0, 0, 9), (0, 0, 9, -9), (160, 0, 9, 9), (0, 128, 9, 9), (-9, 0, 9, 9),
     (0, -9, 9, 9), (0, 0, 9, 9, 3), [], (0, 0, 9, float("nan")), [(0, 0, 9, 9), (1, 2)], np.zeros((5, 5), bool),
     np.zeros((128, 160)), "face", (0, 0, "9", None)],
)  # fmt: skip
def test_what_is_no_region_is_refused(focus: object) -> None:
    with pytest.raises(EocodecError, match=r"region|mask"):
        focused(focus, (128, 160), BLOCK)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "lacking"), [((0, 5), "width"), ((-3, 5), "width"), ((5, 0), "height")])
def test_a_region_without_a_width_or_height_is_named_so(size: tuple[int, int], lacking: str) -> None:
    region = (8, 8, *size)
    for refused in (lambda: focused(region, (128, 160), BLOCK), lambda: within(region, np.s_[0:64, 0:64])):
        with pytest.raises(EocodecError, match=f"^the region 8,8,{size[0]},{size[1]} has no {lacking}$"):
            refused()


def test_busy_blocks_are_coarser_and_smooth_ones_finer() -> None:
    picture = np.full((100, 131, 3), 120, np.uint8)
    assert not masking(picture, BLOCK, 0.3).any()
    picture[:64, :64] = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    entries = masking(picture, BLOCK, 0.3)
    assert entries.shape == (4, 5)
    assert (entries[:2, :2] > 8).all() and (entries[2:] < 0).all() and (entries[:, 2:] < 0).all()
    assert abs(entries.mean()) <= 2
    assert (masking(picture[:, ::-1], BLOCK, 0.3)[:, 0] <= entries[:, -1]).all()


def test_what_is_wished_becomes_a_tuning_and_a_map(
    chelsea: np.ndarray, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "encoding", replace(model.encoding, masking=0.5))
    picture, region = chelsea[:64, :96].copy(), (0, 0, 40, 40, 0.5)
    picture[:40, :40] = 90
    busy, nearer = masking(picture, BLOCK, 0.5), focused(region, (64, 96), BLOCK)
    assert busy.any() and (busy + nearer != busy).any()
    for tune in (None, "eye"):
        eye = tuning_for(model, True, tune, None, picture, False)
        assert eye.degree == model.encoding.tuning > 0 and (eye.offsets == busy).all()
    for plain in (("psnr", None, False), (None, None, True)):
        assert tuning_for(model, True, plain[0], plain[1], picture, plain[2]) == UNTUNED
    sharp = tuning_for(model, True, "psnr", region, picture, False)
    assert sharp.degree == 0 and sharp.offsets is not None and (sharp.offsets == nearer).all()
    both = tuning_for(model, True, "eye", (0, 0, 40, 40, 2), picture, False).offsets
    most = np.clip(busy.astype(int) + focused((0, 0, 40, 40, 2), (64, 96), BLOCK), -LARGEST_OFFSET, LARGEST_OFFSET)
    assert both is not None and (both == most).all()
    flat = tuning_for(model, True, "eye", None, np.full_like(picture, 9), False)
    assert flat.degree > 0 and flat.offsets is None, "a map that says nothing is none"


@pytest.mark.parametrize("mapped", [False, True])
def test_all_latents_of_a_quad_have_its_step(mapped: bool, model: Model) -> None:
    header = Header(model.id, 200, 120, 0, step_code(4 / 255), tuning=20)
    offsets = np.random.default_rng(0).integers(-32, 33, blocks_of(header, model)).astype(np.int8) if mapped else None
    fineness = Fineness(model, header, offsets)
    low, *details = fineness.steps()
    same, *bands = fineness.quads()
    assert np.array_equal(low, same.at(slice(None), slice(None)))
    for step, band in zip(details, bands, strict=True):
        quad = band.at(slice(None), slice(None))
        assert np.array_equal(band.at(slice(2, 5), slice(1, 4)), quad[2:5, 1:4] if mapped else quad[2:5])
        for row, column in PHASES if mapped else [(0, 0)]:
            assert np.array_equal(step[:, row::2, column::2], quad)


def test_steps_of_a_map_take_little_memory(model: Model) -> None:
    header = Header(model.id, 960, 640, 0, step_code(4 / 255), tuning=20)
    offsets = np.random.default_rng(0).integers(-32, 33, blocks_of(header, model)).astype(np.int8)
    held = [
        band.channels.nbytes + (0 if band.factor is None else band.factor.nbytes)
        for band in Fineness(model, header, offsets).quads()
    ]
    assert 0 < sum(held) < 0.4 * 960 * 640


def test_nets_see_steps_within_their_range_and_latents_have_all_of_them(model: Model) -> None:
    offsets = np.array([[-LARGEST_OFFSET, 0], [8, LARGEST_OFFSET]], np.int8)
    header = Header(model.id, 64, 64, 1, step_code(32 / 255), tuning=32)
    eye = model.manifest.eye
    fineness = Fineness(model, header, offsets)
    for band, step in enumerate(fineness.steps()):
        place = np.repeat(np.repeat(offsets, 2**band, 0), 2**band, 1) if band else np.zeros((1, 1))
        octaves = (eye[band] + place) / CONDITION_UNIT
        usual = model.manifest.steps(header.delta)[band]
        np.testing.assert_allclose(step, np.broadcast_to(usual * 2.0**octaves, step.shape), rtol=1e-5)
        if band:
            level, edge = model.manifest.levels + 1 - band, 2**band
            seen = fineness.condition(level, slice(0, edge), edge)[0]
            assert (seen[0] == np.repeat(np.repeat(offsets, edge // 2, 0), edge // 2, 1) + eye[band]).all()
            assert (seen[1] == 32).all()
            part = fineness.condition(level, slice(edge // 2, edge), edge)[0]
            assert (part == seen[:, edge // 2 :]).all()
    for code, end in ((0, -80), (65535, 48)):  # the finest and the coarsest that a header can say
        for places in (None, offsets):
            plane = Fineness(model, Header(model.id, 64, 64, 1, code), places).condition(1, slice(0, 16), 16)[0, 0]
            assert (plane == end).all() if places is None else plane[0, 0] == plane[-1, -1] == end
    assert STEP_UNIT % CONDITION_UNIT == 0


def test_a_model_without_tuning_knows_plain_files_alone() -> None:
    first = load_model(bundle_of("photo"))
    plain = Header(first.id, 64, 64, 1, 40000)
    assert not first.manifest.tuned and Fineness(first, plain).condition(1, slice(0, 2), 3).shape == (1, 1, 2, 3)
    for tuning, offsets in ((1, None), (0, np.zeros((2, 2), np.int8))):
        with pytest.raises(FormatError, match="its steps differ"):
            Fineness(first, Header(first.id, 64, 64, 1, 40000, tuning=tuning), offsets)


def test_maps_survive_packing_and_are_checked(model: Model) -> None:
    header = Header(model.id, 65, 33, 1, 40000)
    assert model.multiple == BLOCK and blocks_of(header, model) == (2, 3)
    offsets = np.array([[-LARGEST_OFFSET, 0, 5], [LARGEST_OFFSET, -1, 0]], np.int8)
    packed = pack_offsets(offsets)
    found = offsets_of(packed, header, model)
    assert found is not None and found.dtype == np.int8 and (found == offsets).all()
    assert pack_offsets(None) is None and offsets_of(None, header, model) is None
    for entry in (LARGEST_OFFSET + 1, -LARGEST_OFFSET - 1, -128):
        with pytest.raises(FormatError, match="map of steps is out of range"):
            offsets_of(pack_offsets(np.where(offsets == 5, np.int8(entry), offsets)), header, model)
    with pytest.raises(FormatError, match="map of steps"):
        offsets_of(packed, replace(header, width=97), model)


def test_models_and_forms_that_cannot_say_so(chelsea: np.ndarray) -> None:
    picture = chelsea[:64, :64]
    for options in ({"tune": "eye"}, {"focus": (0, 0, 9, 9)}):
        for form in ({"lossless": True}, {"progressive": True}, {"model": "face64"}):
            with pytest.raises(EocodecError, match=r"cannot (be tuned for the eye|have regions of interest)"):
                eocodec.compress(picture, **form, **options)  # type: ignore[arg-type]
    assert eocodec.compress(picture, progressive=True, tune="psnr") == eocodec.compress(picture, progressive=True)
    with pytest.raises(EocodecError, match="tuned for eye or psnr, not for ear"):
        eocodec.compress(picture, tune="ear")
