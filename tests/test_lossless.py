"""The promises of lossless files: every value comes back, everywhere, or the decoder says that it does not."""

import io
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard
from bundles import looking_wrongly
from click.testing import CliRunner
from eocodec_cli import cli
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import eocodec
from eocodec import codec, format
from eocodec.coding import lattice, lossless, lossless_tables, lossless_walk, lossless_weights
from eocodec.coding.lossless_weights import Places, Weights
from eocodec.coding.range_coder import Reader, Writer
from eocodec.coding.registry import LOSSLESS
from eocodec.errors import EocodecError, FormatError, ModelError
from eocodec.image import as_picture, read_picture
from eocodec.model import parts
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

SIZES = [(1, 1), (1, 2), (2, 1), (3, 17), (17, 3), (33, 64), (1, 70), (70, 1), (65, 66)]


def round_trip(picture: np.ndarray) -> np.ndarray:
    return eocodec.decompress(eocodec.compress(picture, lossless=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_every_value_of_a_photo_comes_back(name: str, samples: dict[str, np.ndarray]) -> None:
    picture = samples[name][40:175, 100:267]
    assert np.array_equal(round_trip(picture), picture)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 2, 3, 4])),
        elements=st.one_of(st.integers(0, 255), st.sampled_from([0, 255])),
        fill=st.sampled_from([0, 1, 128, 255]),
    )
)
def test_anything_comes_back(picture: np.ndarray) -> None:
    got = round_trip(picture)
    want = np.repeat(picture[..., :1], 3, 2) if picture.shape[2] < 3 else picture[..., :3]
    assert np.array_equal(got[..., :3], want)
    if picture.shape[2] in (2, 4):
        assert np.array_equal(got[..., 3], picture[..., -1])


def test_noise_and_extremes_come_back() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    for picture in (noise, np.where(noise > 127, np.uint8(255), np.uint8(0)), noise & 1, 254 | noise & 1):
        assert np.array_equal(round_trip(picture), picture)


@pytest.mark.slow
def test_grey_pictures_come_back_grey_and_take_a_third(chelsea: np.ndarray) -> None:
    chelsea = chelsea[60:210, 100:300]
    grey = np.asarray(Image.fromarray(chelsea).convert("L"))
    data = eocodec.compress(grey, lossless=True)
    decoded = codec.decode_file(data)
    assert decoded.grey and np.array_equal(decoded.rgb, np.repeat(grey[..., None], 3, 2))
    assert len(eocodec.compress(np.repeat(grey[..., None], 3, 2), lossless=True)) == len(data)
    assert len(data) < 0.6 * len(eocodec.compress(chelsea, lossless=True))


def test_values_under_full_transparency_are_kept(coffee: np.ndarray) -> None:
    alpha = np.random.default_rng(1).integers(0, 2, coffee.shape[:2]).astype(np.uint8) * 255
    picture = np.dstack([coffee, alpha])[:64, :80]
    assert np.array_equal(round_trip(picture), picture)


@pytest.mark.slow
def test_strips_do_not_show(chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    data = eocodec.compress(chelsea[:120], lossless=True)
    file = format.parse(data)
    monkeypatch.setattr(lossless_walk, "STRIP", 1000)
    again = eocodec.compress(chelsea[:120], lossless=True)
    assert np.array_equal(eocodec.decompress(again), chelsea[:120])
    # Other strips are another order of symbols, never other symbols: the parameters agree and the sizes nearly.
    assert format.parse(again).lossless == file.lossless
    assert abs(len(again) - len(data)) < 0.002 * len(data)


@pytest.mark.slow
def test_segments_of_a_lossless_file_end_with_all_latents(chelsea: np.ndarray) -> None:
    kept = LOSSLESS.latents_after_segments(format.parse(eocodec.compress(chelsea[:150], lossless=True)))
    assert kept[0] == 0 and kept == sorted(kept) and kept[-1] == 768 and len(kept) > 5


def missing_levels(picture: np.ndarray) -> np.ndarray:
    """With three of four levels."""
    return (picture.astype(int) * 3 // 4 * 4 // 3).astype(np.uint8)


@pytest.mark.parametrize("grey", [False, True])
def test_levels_that_never_come_take_no_bits(
    grey: bool, samples: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = missing_levels(samples["rocket"][100:200, 300:420])
    picture = np.repeat(picture[..., 1:2], 3, 2) if grey else picture
    data = eocodec.compress(picture, lossless=True)
    file = format.parse(data)
    assert file.lossless is not None
    weights = lossless.Parameters.unpack(file.lossless).weights
    assert weights is not None and (set(weights.logs) == {0} if grey else {3, 4, 5} <= set(weights.logs))
    assert np.array_equal(eocodec.decompress(data)[..., :3] if not grey else codec.decode_file(data).rgb, picture)
    monkeypatch.setattr(lossless, "fit", lambda tables, found: None)
    plain = eocodec.compress(picture, lossless=True)
    assert len(data) < 0.97 * len(plain)
    # What the first segments hold is decoded as of any other file.
    first = format.serialise(replace(file, segments=file.segments[:1]))
    assert codec.decode_file(first).rgb.shape == picture.shape


def test_photographs_with_all_levels_have_no_weights(coffee: np.ndarray) -> None:
    file = format.parse(eocodec.compress(coffee[100:190, 200:310], lossless=True))
    assert file.lossless is not None and lossless.Parameters.unpack(file.lossless).weights is None


def some_places(axis: int, count: int, generator: np.random.Generator) -> Places:
    table = generator.integers(0, lossless_weights.LIMIT, count)
    lowest, highest = lattice.LOWEST[axis], lattice.HIGHEST[axis]
    before = [generator.integers(lattice.LOWEST[a], 256, count) for a in range(axis)]
    predicted = generator.integers(lowest, highest + 1, count)
    return Places(axis, table, generator.integers(0, 2, count).astype(bool), predicted, before)


def some_weights(generator: np.random.Generator) -> Weights:
    sizes = [highest - lowest + 1 for lowest, highest in lossless_weights.RANGES]
    return Weights({t: generator.integers(-64, 25, n).astype(np.int8) for t, n in enumerate(sizes)})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_weighted_frequencies_are_those_of_the_format(axis: int, model: Model) -> None:
    """By the words of docs/FORMAT.md, in Python's integers."""
    generator = np.random.default_rng(axis)
    tables, weights, places = (
        lossless_tables.tables_of(model),
        some_weights(generator),
        some_places(axis, 200, generator),
    )
    got = lossless_weights.frequencies(tables, places, weights.windows(places)) + 1

    def weight(table: int, value: int) -> int:
        lowest, highest = lossless_weights.RANGES[table]
        return int(weights.logs[table][value - lowest]) if lowest <= value <= highest else -64

    for k in range(200):
        f = tables.frequencies[int(places.table[k])].tolist()
        radius, p = len(f) // 2, int(places.predicted[k])
        of = {m: f[m + radius] for m in range(-radius, radius + 1)}
        sign = -1 if places.turned[k] else 1
        shares = [sum(n for m, n in of.items() if sign * m < -8) // 64 * 256]
        for v in range(p - 8, p + 9):
            total = weight(axis, v)
            if axis == 2:
                y, co = (int(b[k]) for b in places.finished)
                t = y - (v >> 1)
                b = t - (co >> 1)
                total += weight(3, b + co) + weight(4, v + t) + weight(5, b)
            factor = int(256 * 2 ** (min(max(total, -64), 24) / 8) + 0.5)
            shares.append(of.get(sign * (v - p), 0) // 64 * factor)
        shares.append(sum(n for m, n in of.items() if sign * m > 8) // 64 * 256)
        want = [1 + share * (2**24 - 19) // sum(shares) for share in shares]
        want[9] += 2**24 - sum(want)
        assert got[k].tolist() == want


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_weighted_values_come_back_however_far_they_are(axis: int, model: Model) -> None:
    generator = np.random.default_rng(9 + axis)
    tables, weights, places = (
        lossless_tables.tables_of(model),
        some_weights(generator),
        some_places(axis, 3000, generator),
    )
    near = places.predicted + np.round(generator.standard_cauchy(3000) * 3).astype(int)
    values = np.clip(near, lattice.LOWEST[axis], lattice.HIGHEST[axis])
    writer = Writer(tables)
    lossless_weights.put(writer, tables, weights, places, values)
    reader = Reader(tables, writer.payload())
    assert np.array_equal(lossless_weights.take(reader, tables, weights, places), values)
    assert (np.abs(values - places.predicted) > lossless_weights.WINDOW).any()


@pytest.mark.parametrize("table", [0, 40, 135, 159])
def test_tails_are_tables_whatever_the_radius(table: int, model: Model) -> None:
    tables = lossless_tables.tables_of(model)
    f = lossless_tables.tail_frequencies(tables.frequencies[table])
    assert f.sum() == 1 << 24 and f.min() >= 1 and len(f) == tables.last_of_tails[table] + 1 >= 2


def test_weights_that_no_encoder_writes_are_refused() -> None:
    weights = some_weights(np.random.default_rng(0))
    packed = lossless.Parameters(1, True, [0] * 9, {}, weights).pack()
    again = lossless.Parameters.unpack(packed).weights
    assert again is not None and all(np.array_equal(again.logs[t], w) for t, w in weights.logs.items())
    at = lossless.PARAMETERS
    content = b"".join(w.tobytes() for w in weights.logs.values())
    compress = zstandard.ZstdCompressor().compress
    for wrong in (
        b"",
        b"\0" + compress(b""),  # none
        b"\x40" + compress(content),  # an unknown one
        b"\x3f" + compress(content[:-1]),
        b"\x3f" + compress(content + b"\0"),
        b"\x3f" + content,
        b"\x3f" + compress(bytes([25]) + content[1:]),
        b"\x3f" + compress(bytes([256 - 65]) + content[1:]),
    ):
        with pytest.raises(FormatError, match="lossless parameters"):
            lossless.Parameters.unpack(packed[:at] + wrong)
    grey = bytearray(packed)
    grey[4] = lossless.WEIGHTED  # a grey picture has no weights but Y's
    with pytest.raises(FormatError, match="lossless parameters"):
        lossless.Parameters.unpack(bytes(grey))


def test_pixels_are_proven_by_their_checksum(coffee: np.ndarray) -> None:
    file = format.parse(eocodec.compress(coffee[:40, :50], lossless=True))
    assert file.lossless is not None
    parameters = lossless.Parameters.unpack(file.lossless)
    assert parameters.checksum == zlib.crc32(coffee[:40, :50].tobytes())
    forged = replace(file, lossless=replace(parameters, checksum=parameters.checksum ^ 1).pack())
    with pytest.raises(FormatError, match="not those that were compressed"):
        eocodec.decompress(format.serialise(forged))


def test_forged_streams_are_refused_and_their_prefixes_still_decode(coffee: np.ndarray) -> None:
    picture = coffee[:60, :70]
    file = format.parse(eocodec.compress(picture, lossless=True))
    generator = np.random.default_rng(3)
    for _ in range(5):
        segments = list(file.segments)
        k = int(generator.integers(len(segments)))
        segments[k] = replace(segments[k], payload=generator.bytes(len(segments[k].payload)))
        with pytest.raises(FormatError):
            eocodec.decompress(format.serialise(replace(file, segments=tuple(segments))))
        cut = codec.decode_file(format.serialise(replace(file, segments=tuple(segments[:k]))))
        assert cut.rgb.shape == picture.shape and not cut.complete


@pytest.mark.slow
def test_photos_are_smaller_than_png_and_webp(samples: dict[str, np.ndarray]) -> None:
    for name in ("astronaut", "coffee"):
        picture = samples[name][:256, 100:420]
        size = len(eocodec.compress(picture, lossless=True))
        for kind, options, factor in (
            ("PNG", {"optimize": True}, 0.8),
            ("WEBP", {"lossless": True, "method": 6}, 0.98),
        ):
            out = io.BytesIO()
            Image.fromarray(picture).save(out, kind, **options)
            assert size < factor * len(out.getvalue()), (name, kind)


def test_more_bits_than_are_kept_are_refused(tmp_path: Path) -> None:
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for wide in (eight.astype(np.uint16) * 257, eight / 255.0, (eight / 255.0).astype(np.float32)):
        assert np.array_equal(codec.decode_file(eocodec.compress(wide, lossless=True), depth=8).rgb[..., 0], eight)
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / "wide.png")
    assert not read_picture(tmp_path / "wide.png").deep
    Image.fromarray(eight.astype(np.uint16) * 257 + 1).save(tmp_path / "deep.png")
    for deep in (eight.astype(np.uint16) * 257 + 1, eight / 256.0, Image.open(tmp_path / "deep.png")):
        assert as_picture(deep).deep
        with pytest.raises(EocodecError, match="more bits a sample"):
            eocodec.compress(deep, lossless=True, depth=8)
    header = b"P6\n2 1\n65535\n"
    (tmp_path / "deep.ppm").write_bytes(header + bytes(range(12)))
    assert read_picture(tmp_path / "deep.ppm").deep


def test_targets_and_other_forms_are_refused(chelsea: np.ndarray, model: Model) -> None:
    for wrong in ({"rate": 3.0}, {"bpp": 1.0}, {"max_bytes": 1000}, {"psnr": 40.0}, {"tiny": True}):
        with pytest.raises(EocodecError, match="lossless"):
            eocodec.compress(chelsea[:64, :64], lossless=True, **wrong)
    old = Model({name: content for name, content in model.files.items() if not name.startswith("lossless/")})
    with pytest.raises(ModelError, match="no graphs for lossless files"):
        eocodec.compress(chelsea, lossless=True, model=old)


def test_parameters_round_trip_and_refuse_what_is_none() -> None:
    tunings = {
        unit: np.arange(lattice.context_channels(1 + (unit - 1) % 3, (unit - 1) % 9 // 3), dtype=np.int8) - 9
        for unit in (19, 30, 36)
    }
    packed = lossless.Parameters(123456789, True, [-8, -1, 0, 1, 7, 0, 3, -4, 5], tunings).pack()
    again = lossless.Parameters.unpack(packed)
    assert again.pack() == packed and again.corrections == [-8, -1, 0, 1, 7, 0, 3, -4, 5]
    assert all(np.array_equal(again.tunings[k], t) for k, t in tunings.items())
    spoilt = (
        packed[:-1],
        packed + b"\0",
        packed[:5],
        packed[:4] + b"\2" + packed[5:],
        packed[:12] + b"\xff" + packed[13:],
    )
    for wrong in spoilt:
        with pytest.raises(FormatError, match="parameters"):
            lossless.Parameters.unpack(wrong)


def test_spoilt_tables_are_refused(model: Model) -> None:
    content = model.files[lossless_tables.TABLES_FILE]
    assert len(lossless_tables.unpack_tables(content)) == lossless_tables.TABLES
    for wrong in (
        b"",
        content[:-4],
        content + content[:4],
        b"\1" + content[1:],
        content[:8] + b"\0\0\0\0" + content[12:],
    ):
        with pytest.raises(ModelError, match="tables"):
            lossless_tables.unpack_tables(wrong)


def test_the_command_writes_shows_and_reads_lossless_files(tmp_path: Path, chelsea: np.ndarray) -> None:
    source, packed, back = (str(tmp_path / name) for name in ("a.png", "a.eoc", "b.png"))
    Image.fromarray(chelsea[:50, :61]).convert("L").save(source)
    runner = CliRunner()
    done = runner.invoke(cli, ["compress", "--lossless", source, "-o", packed])
    assert done.exit_code == 0 and "lossless" in done.output, done.output
    shown = runner.invoke(cli, ["info", packed])
    assert "lossless" in shown.output and shown.exit_code == 0
    assert runner.invoke(cli, ["decompress", packed, "-o", back]).exit_code == 0
    with Image.open(source) as a, Image.open(back) as b:
        assert a.mode == b.mode == "L" and np.array_equal(np.asarray(a), np.asarray(b))
    for option in (["--rate", "5"], ["--bpp", "1"], ["--bytes", "99"], ["--psnr", "30"], ["--tiny"]):
        refused = runner.invoke(cli, ["compress", "--lossless", *option, source, "-o", packed, "--force"])
        assert refused.exit_code == 2 and "--lossless excludes" in refused.output


@pytest.mark.parametrize(("hidden", "gates", "features"), [((16, 16), 0, 0), ((16,), 5, 8), ((24, 16, 8), 32, 3)])
def test_exported_graphs_are_integer_arithmetic(hidden: tuple[int, ...], gates: int, features: int) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from eocodec_export.predictor import Predictor, companded, integers, predictor_graph

    torch.manual_seed(0)
    predictor = Predictor(20, hidden, gates, features).requires_grad_(False)
    for p in predictor.parameters():
        p.normal_(0, 0.2)
    predictor.net.convs[-1].bias[1] = 3.0
    session = onnxruntime.InferenceSession(predictor_graph(predictor), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    context = generator.integers(-510, 511, (20, 30, 40)).astype(np.int16)
    context[:, 15:] //= 40
    around = generator.integers(0, 256, (features, 30, 40)).astype(np.uint8)
    inputs = {"context": context[None], "features": around[None]}
    mean, index = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})
    want = integers(predictor, context.reshape(20, -1).T, around.reshape(features, 30 * 40).T)
    assert np.array_equal(mean.ravel(), want[0]) and np.array_equal(index.ravel(), want[1])
    assert len(session.get_inputs()) == (2 if features else 1)
    assert len(np.unique(index)) > 5 and len(np.unique(mean)) > 100
    small, around = context[:, 15:].reshape(20, -1), around[:, 15:].reshape(features, 15 * 40)
    seen = torch.from_numpy(np.concatenate([companded(small), around.astype(np.float32) / 32]))
    floats = predictor(torch.from_numpy(small.astype(np.float32)), seen, True)
    assert np.abs(floats[0].numpy() - integers(predictor, small.T, around.T)[0] / 16).max() < 0.2
    predictor.linear.fill_(2.0)
    with pytest.raises(ModelError, match="exact range"):
        predictor_graph(predictor)


def test_the_graph_that_looks_around_is_integer_arithmetic() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from eocodec_export.predictor import Surroundings, companded, features_graph, integer_features

    torch.manual_seed(0)
    around = Surroundings(15, 16, 8).requires_grad_(False)
    for p in around.parameters():
        p.normal_(0.01, 0.1)
    context = np.random.default_rng(0).integers(-510, 511, (15, 30, 40)).astype(np.int16)
    context[:, 15:] //= 40
    session = onnxruntime.InferenceSession(features_graph(around), providers=["CPUExecutionProvider"])
    features = session.run(None, {"context": context[None]})[0][0]
    assert np.array_equal(features, integer_features(around, context)) and len(np.unique(features)) > 20
    floats = around(torch.from_numpy(companded(context))[None], True)[0].numpy() * 32
    assert np.abs(floats - features).max() <= 1 and (floats == features).mean() > 0.99
    rows = session.run(None, {"context": context[None, :, 6:24]})[0][
        0
    ]  # those farther than four rows away are not seen
    assert np.array_equal(rows[:, 4:14], features[:, 10:20])
    assert not np.array_equal(rows[:, :3], features[:, 6:9])


def test_a_graph_with_more_gates_than_are_exact_is_refused() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from eocodec_export.predictor import Predictor, predictor_graph

    with pytest.raises(ModelError, match="33 gates"):
        predictor_graph(Predictor(20, (8,), 33).requires_grad_(False))


@pytest.mark.slow
def test_nets_are_trained_kept_and_taken_up_again(
    tmp_path: Path, samples: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from eocodec_export.lossless import KEEP_EVERY, Effort, Nets, lossless_files

    model = load_model("photo")
    base = {name: content for name, content in model.files.items() if not name.startswith("lossless/")}
    pictures = [p[:90, :120] for p in samples.values()]
    tiny = {
        1: Nets((8, 8), 2, 8, 6, KEEP_EVERY + 30, 2, 16, 2),
        2: Nets((8,), 0, 8, 6, 12, 2, 12, 1),
        4: Nets((8,), 1, 8, 6, 12, 2, 99, 0),
    }
    effort = Effort(pictures=3, nets=tiny)
    said: list[str] = []
    files = lossless_files(base, pictures, effort=effort, folder=tmp_path, report=said.append)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")}
    assert len(files) == 37 and len(kept) == 3 and sum(" bits" in line for line in said) == 4
    picture = samples["coffee"][100:180, 200:290]
    trained = Model(parts.listed({**base, **files}))
    monkeypatch.setattr(lossless, "_packed", lambda samples, size, limit=None: b"")  # a WebP stream would be smaller
    data = codec.compress(picture, model=trained, lossless=True)
    assert (codec.decompress(data, trained) == picture).all() and len(data) < 0.5 * picture.size
    shorter = replace(effort, nets={h: replace(nets, iterations=2) for h, nets in tiny.items()})
    further = lossless_files(base, pictures, effort=shorter, start=files)
    assert further.keys() == files.keys() and further != files
    last = next(path for path in kept if path.name == "1.pt")
    last.unlink()

    def interrupted(line: str) -> None:
        if f"{KEEP_EVERY} of" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lossless_files(base, pictures, effort=effort, folder=tmp_path, report=interrupted)
    assert lossless_files(base, pictures, effort=effort, folder=tmp_path) == files
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items() if path != last)
    with pytest.raises(ModelError, match="other settings"):
        lossless_files(base, pictures, effort=replace(effort, rate=1e-3), folder=tmp_path)
    with pytest.raises(ModelError, match="other settings"):  # other nets at the beginning, or other pictures
        lossless_files(base, pictures, effort=effort, folder=tmp_path, start=files)
    with pytest.raises(ModelError, match="other settings"):
        lossless_files(base, [p[::-1] for p in pictures], effort=effort, folder=tmp_path)


class Hostile:
    """What runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_states_of_training_run_nothing_and_come_back_with_their_generator(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from eocodec.flow.states import load_state

    path = tmp_path / "1.pt"
    torch.save({"training": Hostile(tmp_path / "ran")}, path)
    with pytest.raises(ModelError, match=r"1\.pt is no state of training that can be read; remove it"):
        load_state(path)
    assert not (tmp_path / "ran").exists()
    weight = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    generator = np.random.default_rng(1).bit_generator.state
    state = {"training": {"optimiser": optimiser.state_dict(), "generator": generator}, "best": (1.0, None)}
    torch.save(state, path)
    kept = load_state(path)
    assert kept["training"]["generator"] == generator and kept["best"] == (1.0, None)
    assert torch.equal(kept["training"]["optimiser"]["state"][0]["exp_avg"], torch.full((2,), 0.1))


def test_nets_come_back_from_their_bundle(model: Model) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from eocodec_export.lossless import FULL, Effort, Nets, graphs, restored

    nets = restored(model.files, FULL)
    found = {name: content for half, own in nets.items() for name, content in graphs(half, own)}
    assert len(found) == 36 and all(model.files[name] == content for name, content in found.items())
    for other in (Nets((96, 96), 32, 48, 31, 1, 1, 8, 1), Nets((96,), 32, 48, 32, 1, 1, 8, 1)):
        with pytest.raises(ModelError, match="other sizes"):
            restored(model.files, Effort(nets={1: other}))
    with pytest.raises(ModelError, match="no nets for lossless files"):
        restored({}, FULL)


def test_drawings_and_noise_are_packed(chelsea: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    drawing = np.full((120, 160, 3), 255, np.uint8)
    for k in range(12):
        drawing[10 * k : 10 * k + 5, 8 * k : 8 * k + 60] = generator.integers(0, 256, 3)
    drawing[20:100:7, 30:140:3] = 0
    noise = generator.integers(0, 256, (60, 50, 3), np.uint8)
    for picture, most in ((drawing, 3000), (drawing[..., :1].repeat(3, 2), 3000), (noise, noise.size + 60)):
        data = eocodec.compress(picture, lossless=True)
        assert len(data) <= most and (eocodec.decompress(data) == picture).all()
    payload = format.parse(data).segments[0].payload
    for broken in (b"", b"\x03" + payload[1:], payload[:-3], payload[:1] + payload[30:]):
        file = format.parse(data)
        with pytest.raises(FormatError, match="damaged"):
            eocodec.decompress(format.serialise(replace(file, segments=(replace(file.segments[0], payload=broken),))))
    shifted = payload[:1] + zstandard.ZstdCompressor(write_content_size=False).compress(bytes(noise.size))
    with pytest.raises(FormatError, match="pixels are not those"):
        eocodec.decompress(format.serialise(replace(file, segments=(replace(file.segments[0], payload=shifted),))))
    assert len(eocodec.compress(chelsea[:100, :100], lossless=True)) < 0.7 * 30000


def test_training_photos_are_also_such_with_half_the_chroma(samples: dict[str, np.ndarray]) -> None:
    pytest.importorskip("torch")
    from eocodec_export.photos import prepared, with_half_chroma

    def detail(picture: np.ndarray) -> float:
        """Energy of what rows say of chroma beyond their neighbours' mean."""
        co = picture[..., 0].astype(float) - picture[..., 2]
        return float(np.mean((co[1:-1] - (co[:-2] + co[2:]) / 2) ** 2))

    coffee = samples["coffee"][:120, :160]
    for seed in range(8):
        halved = with_half_chroma(coffee[:119], np.random.default_rng(seed))
        assert halved.shape == (119, 160, 3) and halved.dtype == np.uint8
        luma = [p.astype(float) @ (0.299, 0.587, 0.114) for p in (halved, coffee[:119])]
        assert np.abs(luma[0] - luma[1]).mean() < 1.5
    both = [with_half_chroma(coffee, np.random.default_rng(seed)) for seed in range(12)]
    assert np.mean([detail(p) for p in both]) < 0.7 * detail(coffee)
    grey = with_half_chroma(np.repeat(coffee[..., :1], 3, 2), np.random.default_rng(0))
    assert (grey == grey[..., :1]).all()
    pictures = list(samples.values())
    found = prepared(pictures, 6)
    assert len(found) == 6 and all(np.array_equal(a, b) for a, b in zip(found, prepared(pictures, 6), strict=True))


def test_features_of_another_shape_are_refused() -> None:
    for files, data in looking_wrongly().values():
        with pytest.raises(
            ModelError, match=r"something else than such a graph should|now more, now fewer features|failed: "
        ):
            eocodec.decompress(data, Model(files))
