"""The codec's promises, on the sample pictures and the shipped model."""

import threading

import numpy as np
import pytest
from PIL import Image

import eocodec
from eocodec import codec, format
from eocodec.coding import ordinary, walk
from eocodec.coding.registry import ORDINARY
from eocodec.errors import EocodecError, FormatError
from eocodec.metrics import psnr
from eocodec.model import transform
from eocodec.model.bundle import Model
from eocodec.steps import step_code


@pytest.mark.slow
def test_quality_and_size_rise_with_the_rate(chelsea: np.ndarray, model: Model) -> None:
    sizes, qualities = [], []
    for rate in (1, 4, 16, 64, 200, 500, 768):
        done = codec.compress_picture(chelsea[:200, :300], rate, model=model, measure=True)
        sizes.append(len(done.data))
        qualities.append(done.psnr)
        assert done.rate == pytest.approx(rate, abs=0.02)
    assert sizes == sorted(sizes) and qualities == sorted(qualities)
    assert qualities[0] > 14 and qualities[-1] > 43


@pytest.mark.slow
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_smaller_than_jpeg_and_webp_at_equal_quality(name: str, samples: dict[str, np.ndarray], model: Model) -> None:
    import io

    picture = samples[name]
    for kind, options, margin in (
        ("JPEG", {"quality": 50, "optimize": True, "subsampling": "4:2:0"}, 0.75),
        ("WEBP", {"quality": 50, "method": 6}, 1.0),
    ):
        out = io.BytesIO()
        Image.fromarray(picture).save(out, kind, **options)
        reached = psnr(picture, np.asarray(Image.open(out).convert("RGB")))
        ours = codec.compress_picture(picture, psnr=reached, model=model, measure=True)
        assert ours.psnr is not None and ours.psnr >= reached
        assert len(ours.data) <= margin * len(out.getvalue()), (name, kind)


@pytest.mark.slow
def test_flat_and_noise_pictures(model: Model) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    for picture in (
        np.zeros_like(noise),
        np.full_like(noise, 255),
        noise,
        np.tile(np.uint8([[[255, 0, 0], [0, 0, 255]]]), (40, 20, 1)),
    ):
        for rate in (1, 100, 768):
            got = eocodec.decompress(eocodec.compress(picture, rate))
            assert got.shape == picture.shape
    flat = eocodec.compress(np.full((200, 300, 3), 77, np.uint8), 200)
    assert len(flat) < 200 and np.abs(eocodec.decompress(flat).astype(int) - 77).max() <= 3


def test_overhead_is_at_most_24_bytes_on_64x64(chelsea: np.ndarray, model: Model) -> None:
    for rate in (1, 8, 96, 300, 768):
        data = eocodec.compress(chelsea[:64, 200:264], rate)
        file = format.parse(data)
        shifts = 0 if file.shifts is None else len(file.shifts) + 6  # they save more than their element takes
        assert len(data) - sum(len(s.payload) for s in file.segments) - shifts <= 24, rate


def test_truncate_by_latents_keeps_whole_segments(coffee: np.ndarray) -> None:
    data = eocodec.compress(coffee, 200)
    kept = ORDINARY.latents_after_segments(format.parse(data))
    assert kept[-1] <= 768
    cut = eocodec.truncate(data, latents=100)
    assert ORDINARY.latents_after_segments(format.parse(cut))[-1] <= 100


@pytest.mark.slow
def test_files_are_cut_by_what_they_hold(coffee: np.ndarray) -> None:
    """A rate means what it means in compress: streams hold all of them, ordinary files none but their own."""
    small = coffee[:96, :128]
    stream, ordinary, exact = (
        eocodec.compress(small, **how)
        for how in ({"rate": 200, "progressive": True}, {"rate": 200}, {"lossless": True})
    )
    assert eocodec.truncate(stream, rate=40) == eocodec.compress(small, 40, progressive=True)
    for data, kind in ((ordinary, "an ordinary"), (exact, "a lossless")):
        with pytest.raises(EocodecError, match=f"cannot be cut from {kind} file"):
            eocodec.truncate(data, rate=40)
        with pytest.raises(EocodecError, match="no segment"):
            eocodec.truncate(data, latents=1)
        assert eocodec.truncate(data, latents=1e6) == data
    with pytest.raises(EocodecError, match="rate or bytes"):
        eocodec.truncate(stream, latents=40)


@pytest.mark.slow
def test_targets_are_met(chelsea: np.ndarray, model: Model) -> None:
    picture = chelsea[50:250, 100:326]
    for limit in (750, 3000, 10000):
        data = eocodec.compress(picture, max_bytes=limit)
        assert 0.9 * limit < len(data) <= limit
    data = eocodec.compress(picture, bpp=0.5)
    assert 0.45 < 8 * len(data) / (200 * 226) <= 0.5
    for target in (28.0, 36.0):
        reached = psnr(picture, eocodec.decompress(eocodec.compress(picture, psnr=target)))
        assert target <= reached < target + 0.3
    with pytest.raises(EocodecError, match="smallest file"):
        eocodec.compress(picture, max_bytes=10)
    with pytest.raises(EocodecError, match="out of reach"):
        eocodec.compress(picture, psnr=90)
    with pytest.raises(EocodecError, match="only one"):
        eocodec.compress(picture, 3, bpp=1)
    for bad in (0, 769, float("nan")):
        with pytest.raises(EocodecError, match="from 1 to 768"):
            eocodec.compress(picture, bad)


def test_rate_and_step_are_inverse(model: Model) -> None:
    previous = np.inf
    for rate in (1, 1.5, 3, 10, 96, 400.5, 768):
        delta = model.manifest.step_of(rate)
        assert delta < previous
        assert model.manifest.rate_of(delta) == pytest.approx(rate, rel=1e-6)
        previous = delta


@pytest.mark.slow
def test_strips_do_not_change_the_symbols_nets_see(
    coffee: np.ndarray, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latents decoded strip by strip equal those decoded in one piece: the halo of the strips is wide enough."""
    latents = transform.analyse(model, coffee)
    header = format.Header(model.id, coffee.shape[1], coffee.shape[0], 0, step_code(20 / 255))
    results = []
    for strip in (1 << 20, 1200):
        monkeypatch.setattr(walk, "STRIP", strip)
        segments = ordinary.encode(model, header, latents)
        results.append(ordinary.decode(model, header, segments))
    assert all((a == b).all() for a, b in zip(*results, strict=True))


@pytest.mark.slow
def test_tiles_show_no_seam(samples: dict[str, np.ndarray], model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.tile(samples["rocket"], (2, 2, 1))[:576, :832]  # three tiles by four, the last ones a part
    whole = transform.analyse(model, picture)
    decoded = transform.synthesise(model, whole, 0.1, picture.shape[1], picture.shape[0])
    monkeypatch.setattr(transform, "WHOLE", 0)
    monkeypatch.setattr(transform, "TILE", 256)
    tiled = transform.analyse(model, picture)
    for a, b in zip(whole, tiled, strict=True):
        assert np.abs(a - b).max() < 2e-3
    again = transform.synthesise(model, whole, 0.1, picture.shape[1], picture.shape[0])
    difference = np.abs(again.astype(int) - decoded)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_hostile_segments_with_valid_checksums_do_not_crash(model: Model) -> None:
    """Payloads of noise under correct checksums decode to some picture or raise FormatError, nothing else."""
    random, decoded = np.random.default_rng(5), 0
    for trial in range(25):
        header = format.Header(
            model.id, int(random.integers(1, 90)), int(random.integers(1, 90)), 0, int(random.integers(65536))
        )
        segments = tuple(
            format.Segment(int(random.integers(1, 30)), random.bytes(int(random.integers(0, 400))))
            for _ in range(trial % 3 + 1)
        )
        data = format.serialise(format.File(header, None, segments))
        try:
            got = eocodec.decompress(data)
        except FormatError as e:
            assert "damaged" in str(e) and "\n" not in str(e)
            continue
        assert got.shape == (header.height, header.width, 3)
        decoded += 1
    assert 0 < decoded < 25


def test_edges_of_odd_sizes_are_as_good_as_the_rest(coffee: np.ndarray) -> None:
    picture = coffee[:300, :421]
    error = (eocodec.decompress(eocodec.compress(picture, 400)).astype(float) - picture) ** 2
    inner = error[:-16, :-16].mean()
    assert error[-4:].mean() < 4 * inner and error[:, -4:].mean() < 4 * inner


def test_one_model_serves_several_threads(chelsea: np.ndarray, model: Model) -> None:
    picture = chelsea[:150, :220]
    want = eocodec.compress(picture, 80)
    got: list[bytes] = []
    workers = [threading.Thread(target=lambda: got.append(eocodec.compress(picture, 80))) for _ in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert got == [want] * 3


@pytest.mark.parametrize(("depth", "most"), [(8, 255), (16, 65535)])
def test_levels_are_those_nearest_to_values_whatever_the_rows_worked_at(depth: int, most: int) -> None:
    values = np.random.default_rng(0).uniform(-0.1, 1.1, (3, 71, 1 << 9)).astype(np.float32)
    levels = transform.interleaved(values, depth)
    wanted = np.floor(np.clip(values, 0, 1) * np.float32(most) + np.float32(0.5)).transpose(1, 2, 0)
    assert values[0].size > transform.CHUNK and levels.dtype.itemsize == depth // 8
    assert np.array_equal(levels, wanted) and np.array_equal(
        transform.to_levels(values, depth).transpose(1, 2, 0), wanted
    )
