"""The embedded stream: every prefix is a picture, and files of all rates are prefixes of one another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paths import Runner
from PIL import Image

import eocodec
from eocodec import codec, format
from eocodec.coding import embedded, embedded_tables
from eocodec.coding.describe import describe
from eocodec.errors import EocodecError, EocodecWarning, FormatError, ModelError
from eocodec.image import as_picture
from eocodec.metrics import psnr
from eocodec.model import transform
from eocodec.model.bundle import Model, read_bundle
from eocodec.model.library import load_model, shipped_models
from eocodec.model.parts import listed


@pytest.fixture(scope="module")
def picture(chelsea: np.ndarray) -> np.ndarray:
    return chelsea[60:187, 100:289]


@pytest.fixture(scope="module")
def data(picture: np.ndarray) -> bytes:
    return eocodec.compress(picture, 500, progressive=True)


@pytest.mark.slow
def test_the_files_of_all_rates_are_prefixes_of_one_another(picture: np.ndarray, data: bytes) -> None:
    sizes = []
    for rate in (4, 20, 96, 300):
        smaller = eocodec.compress(picture, rate, progressive=True)
        sizes.append(len(smaller))
        assert smaller[:-4] == data[: len(smaller) - 4]
        assert codec.decode_file(smaller).complete
    assert sizes == sorted(sizes) and sizes[0] > 30


def test_an_embedded_stream_has_neither_rate_nor_step(data: bytes) -> None:
    file = format.parse(data)
    for wrong in ({"rate": 1}, {"step": 1}):
        with pytest.raises(FormatError, match="has no rate"):
            format.parse(format.serialise(replace(file, header=replace(file.header, **wrong))))


@pytest.mark.slow
def test_a_cut_is_the_file_of_that_size(picture: np.ndarray, data: bytes) -> None:
    for size in (300, 1777, 2066, 2067, 2068, 2070, 9000):
        cut = eocodec.truncate(data, max_bytes=size)
        assert size - 4 <= len(cut) <= size
        assert cut == eocodec.compress(picture, max_bytes=size, progressive=True)
        assert (eocodec.decompress(cut) == eocodec.decompress(data[: len(cut) - 4])).all()


@pytest.mark.slow
def test_cutting_to_a_rate_gives_the_file_of_that_rate(picture: np.ndarray, data: bytes) -> None:
    for rate in (10, 60, 200):
        assert eocodec.truncate(data, rate=rate) == eocodec.compress(picture, rate, progressive=True)


def test_a_rate_beyond_the_end_of_a_file_is_refused(picture: np.ndarray) -> None:
    small = picture[:60, :80]
    data = eocodec.compress(small, 120, progressive=True)
    assert eocodec.truncate(data, rate=120) == data
    with pytest.raises(EocodecError, match=r"at rate 400 cannot be cut from .* that goes up to rate 1\d\d") as refused:
        eocodec.truncate(data, rate=400)
    furthest = float(str(refused.value).split("up to rate ")[1].split(";")[0])
    assert furthest >= 120 and eocodec.truncate(data, rate=furthest) == data
    assert eocodec.compress(small, furthest, progressive=True) == data
    with pytest.raises(EocodecError, match="cannot be cut"):
        eocodec.truncate(data, rate=furthest + 0.02)
    assert eocodec.truncate(data, max_bytes=10 * len(data)) == data  # as of other files, all that fits
    for length in (len(data) // 2, 40):  # what is left of a cut counts, not what it was cut from
        part = eocodec.truncate(data, max_bytes=length)
        with pytest.raises(EocodecError, match="cannot be cut"):
            eocodec.truncate(part, rate=120)
    empty = format.to_bytes(replace(format.parse(data), segments=()))
    for nothing in (empty, eocodec.truncate(data, max_bytes=len(empty) + 6)):
        with pytest.raises(EocodecError, match="ends before the smallest rate"):
            eocodec.truncate(nothing, rate=1)


@pytest.mark.slow
def test_targets_hold_for_embedded_streams(picture: np.ndarray) -> None:
    done = codec.compress_picture(picture, bpp=1.0, progressive=True)
    assert 0.98 <= done.bits_per_pixel <= 1.0
    done = codec.compress_picture(picture, psnr=34.0, progressive=True, measure=True)
    assert done.psnr is not None and 34.0 <= done.psnr <= 34.2
    with pytest.raises(EocodecError, match="90 dB is out of reach"):
        eocodec.compress(picture[:40, :40], psnr=90.0, progressive=True)
    with pytest.raises(EocodecError, match="smallest file has"):
        eocodec.compress(picture, max_bytes=16, progressive=True)


@pytest.mark.slow
def test_a_quality_is_reached_with_no_byte_to_spare(samples: dict[str, np.ndarray], model: Model) -> None:
    crops = {(5, 7): (38.0, 42.0), (8, 8): (42.0, 46.0), (24, 32): (30.0, 34.0), (128, 160): (42.0,)}
    for (height, width), targets in crops.items():
        y, x = (0, 0) if height < 10 else (100, 100)
        picture = as_picture(samples["coffee"][y : y + height, x : x + width])
        for target in targets:
            job = codec.open_picture(picture, model, progressive=True).job
            assert isinstance(job, embedded.EmbeddedJob)
            file = job.reaching(target).file
            assert isinstance(file, format.File)
            quality, ends = job.quality(file), [m.end for m in job.stream.marks]
            assert quality >= target and len(file.payload) in ends
            before = [end for end in ends if end < len(file.payload)]
            if quality > target + 0.1 and before:
                shorter = replace(file, segments=(format.Segment(1, file.payload[: before[-1]]),))
                assert job.quality(shorter) < target


@pytest.mark.slow
def test_an_embedded_stream_costs_little(samples: dict[str, np.ndarray]) -> None:
    for sample in list(samples.values())[::2]:
        picture = sample[60:188, 100:292]
        usual = codec.compress_picture(picture, 60, measure=True)
        ours = codec.compress_picture(picture, psnr=usual.psnr, progressive=True)
        assert len(ours.data) < 1.2 * len(usual.data)


@pytest.mark.slow
def test_streams_do_not_depend_on_threads_or_graph_optimisation(picture: np.ndarray, data: bytes) -> None:
    payload = b"".join(s.payload for s in format.parse(data).segments)
    height, width = picture.shape[:2]
    default = load_model("photo")
    latents = transform.analyse(default, picture)
    want = embedded.decode(default, width, height, payload)
    for threads, optimisation in ((1, "all"), (2, "off")):
        other = load_model("photo", threads, optimisation)
        got = embedded.decode(other, width, height, payload)
        assert got[1] == want[1] and all((a == b).all() for a, b in zip(got[0], want[0], strict=True))
        ours, theirs = (embedded.encode(m, latents, width, height, 8.0).payload for m in (default, other))
        assert ours == theirs


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 40))
def test_any_bytes_decode_to_something_or_are_refused(model: Model, payload: bytes, width: int, height: int) -> None:
    try:
        latents, depth = embedded.decode(model, width, height, payload)
    except FormatError:
        return
    assert -1 <= depth <= embedded.LAYERS and all(np.isfinite(b).all() for b in latents)


def test_a_bundle_without_the_tables_says_so(picture: np.ndarray) -> None:
    shipped = read_bundle(Path(shipped_models()["photo"]))
    old = Model({k: v for k, v in shipped.items() if k != "progressive.bin"})
    with pytest.raises(ModelError, match="no tables for the embedded stream"):
        eocodec.compress(picture, progressive=True, model=old)
    with pytest.raises(ModelError, match="are damaged"):
        eocodec.compress(picture, progressive=True, model=Model(listed({**shipped, "progressive.bin": b"\0" * 10})))


def test_the_tables_survive_packing(model: Model) -> None:
    tables = embedded_tables.probabilities_of(model)
    again = embedded_tables.Probabilities.unpack(tables.pack())
    assert all((getattr(tables, k) == getattr(again, k)).all() for k in tables.__dataclass_fields__)


@pytest.mark.slow
def test_the_command_writes_cuts_and_describes_progressive_files(
    call: Runner, picture: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(picture).save(tmp_path / "p.png")
    assert call("compress", "--progressive", "--rate", "200", "p.png").returncode == 0
    assert call("truncate", "--bytes", "3000", "p.eoc").returncode == 0
    assert 2996 <= (tmp_path / "p.cut.eoc").stat().st_size <= 3000
    shown = call("info", "p.cut.eoc")
    assert shown.returncode == 0 and b"embedded stream, as good as C=" in shown.stdout
    assert call("decompress", "p.cut.eoc", "-o", "small.png").returncode == 0
    assert 25 < psnr(picture, np.asarray(Image.open(tmp_path / "small.png"))) < 40
    assert call("compress", "--progressive", "--lossless", "p.png").returncode == 2


@pytest.mark.slow
def test_the_first_bytes_show_a_colour_then_a_coarse_picture(samples: dict[str, np.ndarray]) -> None:
    cuts = (17, 26, 40, 64, 100, 160, 256, 400, 640, 1000, 1600)
    quality = []
    for picture in samples.values():
        small = np.asarray(Image.fromarray(picture).resize((160, 120), Image.Resampling.LANCZOS))
        whole = eocodec.compress(small, max_bytes=1700, progressive=True)
        shown = [eocodec.decompress(whole[:cut]) for cut in cuts]
        assert (shown[0] == embedded.MIDDLE).all()
        quality.append([psnr(small, picture) for picture in shown])
        assert min(np.diff(quality[-1])) > -3  # one place may mislead, no more
        assert quality[-1][4] > psnr(small, np.full_like(small, embedded.MIDDLE)) + 2
    assert (np.diff(np.mean(quality, 0)) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(5, 7), (8, 8), (24, 32), (96, 128)])
def test_longer_prefixes_are_better_on_average(samples: dict[str, np.ndarray], size: tuple[int, int]) -> None:
    cuts = np.geomspace(24, 2000, 12).round().astype(int)
    quality = []
    for picture in samples.values():
        for y, x in ((0, 0), (100, 100), (150, 220)):
            crop = picture[y : y + size[0], x : x + size[1]]
            whole = eocodec.compress(crop, 300, progressive=True)
            lengths = np.minimum(cuts, len(whole))
            shown = {n: psnr(crop, eocodec.decompress(whole[:n])) for n in set(lengths)}
            quality.append([shown[n] for n in lengths])
    steps = np.diff(quality, axis=1)
    assert (steps.mean(0) >= 0).all() and steps[:, 0].mean() > 2
    assert steps.min() > -0.5  # of a single picture


def test_what_counts_of_a_low_pass_is_what_the_whole_one_holds(picture: np.ndarray, data: bytes, model: Model) -> None:
    payload = format.parse(data).payload
    size, start = format.read_number(payload)
    height, width = picture.shape[:2]
    strips: list[list[np.ndarray]] = []

    class Recorder(embedded.LowPrefixReader):
        def low(self, predicted: np.ndarray, index: np.ndarray, place: tuple[int, slice, slice]) -> np.ndarray:
            found = super().low(predicted, index, place)
            strips[-1].append(found - predicted)
            return found

    counts = []
    assert size > 80
    for length in (*range(0, 40, 3), size // 2, 3 * size // 4, size - 1, size):
        strips.append([])
        reader = Recorder(model, payload[start : start + length], size - length)
        embedded.State(model, width, height, None).walk(embedded.LOW_STEP).low_pass(reader)
        counts.append(reader.certain)
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == len(strips[-1]) > 20
    for count, found in zip(counts, strips, strict=True):
        assert all((a == b).all() for a, b in zip(found[:count], strips[-1], strict=False))
        assert not any(rest.any() for rest in found[count:])


def test_a_low_pass_that_claims_to_be_huge_takes_no_memory(model: Model) -> None:
    latents, depth = embedded.decode(model, 40, 30, b"\xff\xff\xff\xff\x0f" + bytes(5))
    assert depth in (-1.0, embedded.ONE_COLOUR) and all(np.isfinite(b).all() for b in latents)


@pytest.mark.parametrize("count", [1, 100, 3000])
def test_what_follows_a_stream_is_no_part_of_it(data: bytes, count: int) -> None:
    behind = np.random.default_rng(3).integers(0, 256, count, np.uint8).tobytes()
    found = format.parse(data + behind)
    assert found.complete and found.trailing == count and found.payload == format.parse(data).payload
    done = codec.decode_file(data + behind)
    assert done.complete and (done.rgb == eocodec.decompress(data)).all()
    assert eocodec.truncate(data + behind, max_bytes=10**9) == data  # without a warning


def test_a_cut_says_that_its_end_was_not_verified(data: bytes) -> None:
    with pytest.warns(EocodecWarning, match="no checksum told whether its last bytes"):
        eocodec.truncate(data[:-40], max_bytes=10**9)
    for whole, limit in ((data, len(data) - 40), (data[:-40], len(data) // 2)):
        assert eocodec.truncate(whole, max_bytes=limit)  # all of it was verified: without a warning


@pytest.mark.slow
def test_the_rate_that_is_told_can_be_cut(data: bytes) -> None:
    for part in (1, 2, 3):
        cut = eocodec.truncate(data, max_bytes=len(data) * part // 3)
        told = describe(cut)["rate"]
        assert told >= 1 and len(eocodec.truncate(cut, rate=told)) <= len(cut)


def test_a_bundle_without_tables_tells_all_but_the_rate(data: bytes) -> None:
    photo = load_model("photo")
    without = Model(
        listed({k: v for k, v in photo.files.items() if k != embedded_tables.TABLES_FILE and k != "parts.json"})
    )
    told = describe(data, {photo.id: without})
    assert told["rate"] is None and told["bytes"] == len(data) and told["complete"]
