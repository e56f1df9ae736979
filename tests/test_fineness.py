"""Maps of steps: regions of interest, masks, masking by contrast, and what cannot be asked for."""

import numpy as np
import pytest

import eocodec
from eocodec.coding.fineness import LARGEST_OFFSET, focused, masking
from eocodec.errors import EocodecError

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
    [(1, 2, 3), (1, 2, 3, 4, 5, 6), (0, 0, 0, 9), (0, 0, 9, -9), (200, 0, 9, 9), (0, -20, 9, 9), (0, 0, 9, 9, 3), [],
     (0, 0, 9, float("nan")), [(0, 0, 9, 9), (1, 2)], np.zeros((5, 5), bool), np.zeros((128, 160)), "face",
     (0, 0, "9", None)],
)  # fmt: skip
def test_what_is_no_region_is_refused(focus: object) -> None:
    with pytest.raises(EocodecError, match=r"region|mask"):
        focused(focus, (128, 160), BLOCK)  # type: ignore[arg-type]


def test_busy_blocks_are_coarser_and_smooth_ones_finer() -> None:
    picture = np.full((100, 131, 3), 120, np.uint8)
    assert not masking(picture, BLOCK, 0.3).any()
    picture[:64, :64] = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    entries = masking(picture, BLOCK, 0.3)
    assert entries.shape == (4, 5)
    assert (entries[:2, :2] > 8).all() and (entries[2:] < 0).all() and (entries[:, 2:] < 0).all()
    assert abs(entries.mean()) <= 2
    assert (masking(picture[:, ::-1], BLOCK, 0.3)[:, 0] <= entries[:, -1]).all()


def test_models_and_forms_that_cannot_say_so(chelsea: np.ndarray) -> None:
    picture = chelsea[:64, :64]
    for options in ({"tune": "eye"}, {"focus": (0, 0, 9, 9)}):
        for form in ({"lossless": True}, {"progressive": True}, {"model": "face64"}):
            with pytest.raises(EocodecError, match=r"cannot (be tuned for the eye|have regions of interest)"):
                eocodec.compress(picture, **form, **options)  # type: ignore[arg-type]
    assert eocodec.compress(picture, progressive=True, tune="psnr") == eocodec.compress(picture, progressive=True)
    with pytest.raises(EocodecError, match="tuned for eye or psnr, not for ear"):
        eocodec.compress(picture, tune="ear")
