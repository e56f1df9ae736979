"""Grey pictures by the model for them in a bundle: one colour axis, and nothing else changes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import MANIFESTS, SPOILED, named
from click.testing import CliRunner
from eocodec_cli import cli
from paths import VECTORS
from PIL import Image

import eocodec
import eocodec.pillow
from eocodec import codec, format
from eocodec.coding.describe import describe
from eocodec.errors import FormatError, ModelError
from eocodec.format import Header
from eocodec.metrics import psnr
from eocodec.model import parts
from eocodec.model.bundle import Model, read_bundle, write_bundle
from eocodec.model.encoding import EncoderSettings
from eocodec.model.grey import FOLDER, GreyFiles
from eocodec.model.library import bundle_files, bundle_path

PATH = VECTORS / "small-grey.eocm"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return read_bundle(PATH)


@pytest.fixture(scope="module")
def model() -> Model:
    return eocodec.load_model(str(PATH))


@pytest.fixture(scope="module")
def without(files: dict[str, bytes]) -> Model:
    """The same bundle without its part for grey pictures."""
    return Model(parts.strip(files, ("grey",)))


@pytest.fixture
def grey(chelsea: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(chelsea[40:131, 60:197]).convert("L"))


def header_of(data: bytes) -> Header:
    return format.parse(data).header


@pytest.mark.parametrize("tune", ["eye", "psnr"])
def test_a_grey_picture_takes_the_model_for_grey_ones(grey: np.ndarray, model: Model, tune: str) -> None:
    data = eocodec.compress(grey, rate=100, tune=tune, model=model)
    header = header_of(data)
    assert (header.axes, header.grey, header.luma) == (1, True, True) and data[3] == 2 and data[9] == 2
    decoded = eocodec.decompress(data, model)
    assert decoded.shape == (*grey.shape, 3) and (decoded == decoded[..., :1]).all()
    assert psnr(np.repeat(grey[..., None], 3, 2), decoded) > 25
    same = eocodec.compress(np.repeat(grey[..., None], 3, 2), rate=100, tune=tune, model=model)
    assert same == data  # R = G = B is grey


def test_colours_do_not(chelsea: np.ndarray, model: Model) -> None:
    data = eocodec.compress(chelsea[:64, :64], model=model)
    assert header_of(data).axes == 3 and data[3] == 1


def test_a_bundle_without_the_part_takes_the_flow_for_colour(grey: np.ndarray, model: Model, without: Model) -> None:
    data = eocodec.compress(grey, rate=100, model=without)
    assert without.full_id == model.full_id and header_of(data).axes == 3
    assert (eocodec.decompress(data, model) == eocodec.decompress(data, without)).all()


def test_files_that_need_the_part_say_so(grey: np.ndarray, model: Model, without: Model) -> None:
    data = eocodec.compress(grey, rate=100, model=model)
    with pytest.raises(ModelError, match="lacks its part for grey pictures"):
        eocodec.decompress(data, without)


def test_a_part_that_only_decodes_leaves_encoding_to_the_flow_for_colour(
    grey: np.ndarray, files: dict[str, bytes], model: Model
) -> None:
    half = Model({n: c for n, c in files.items() if n != f"{FOLDER}encoder.onnx"})
    assert header_of(eocodec.compress(grey, model=half)).axes == 3
    data = eocodec.compress(grey, model=model)
    assert (eocodec.decompress(data, half) == eocodec.decompress(data, model)).all()


def test_a_rate_has_the_same_step_either_way(grey: np.ndarray, model: Model, without: Model) -> None:
    one, three = (header_of(eocodec.compress(grey, rate=77, model=m)) for m in (model, without))
    assert (one.rate, one.step) == (three.rate, three.step)


@pytest.mark.parametrize("target", [{"bpp": 1.2}, {"max_bytes": 1500}, {"psnr": 33.0}])
def test_targets_are_met(grey: np.ndarray, model: Model, target: dict[str, float]) -> None:
    data = eocodec.compress(grey, model=model, **target)  # type: ignore[arg-type]
    assert header_of(data).axes == 1
    assert len(data) <= target.get("max_bytes", target.get("bpp", 99) * grey.size / 8)
    found = psnr(np.repeat(grey[..., None], 3, 2), eocodec.decompress(data, model))
    assert found >= target.get("psnr", 20.0)


def test_segments_are_cut_as_of_other_files(grey: np.ndarray, model: Model) -> None:
    data = eocodec.compress(grey, rate=180, model=model)
    cut = eocodec.truncate(data, max_bytes=len(data) * 2 // 3)
    assert header_of(cut).axes == 1 and len(cut) < len(data)
    assert eocodec.decompress(cut, model).shape == (*grey.shape, 3)


def test_what_is_said_to_be_in_a_block_is_of_one_axis(grey: np.ndarray, model: Model) -> None:
    data = eocodec.compress(grey, rate=150, model=model)
    kept = [s["latents"] for s in describe(data)["segments"]]
    assert kept[0] >= 1 and kept == sorted(kept) and kept[-1] == 64  # of 8x8 pixels
    cut = eocodec.truncate(data, latents=kept[1])
    assert [s["latents"] for s in describe(cut)["segments"]] == kept[:2]
    exact = describe(eocodec.compress(grey, lossless=True))
    assert exact["segments"][-1]["latents"] == 256 and 0 < exact["segments"][0]["latents"] < 100


@pytest.mark.parametrize("quality", [46, 62, 80, 92])
def test_grey_pictures_of_16_bits_take_the_model_for_grey_ones(grey: np.ndarray, quality: float) -> None:
    noise = np.random.default_rng(3).normal(0, 40, grey.shape)
    deep = np.clip(np.rint(grey * 250.0 + 900 + noise), 0, 65535).astype(np.uint16)
    done = codec.compress_picture(deep, psnr=quality, measure=True, verify=True)
    header = header_of(done.data)
    assert header.deep and header.axes == 1 and header.kind == 4 and header.span == (0, 65535)
    assert done.psnr is not None and quality <= done.psnr <= quality + 0.1
    before = Model(parts.strip(bundle_files(bundle_path("photo")), ("grey",)))
    colour = eocodec.compress(deep, psnr=quality, model=before)
    assert header_of(colour).axes == 3 and len(done.data) < {46: 0.99, 92: 0.95}.get(quality, 0.8) * len(colour)
    twelve = codec.compress_picture(deep >> 4, verify=True)
    assert header_of(twelve.data).kind == 4 and header_of(twelve.data).span == (0, 4095)


def test_headers_of_one_axis_with_16_bits_are_checked(grey: np.ndarray) -> None:
    data = eocodec.compress(grey[:40, :40].astype(np.uint16) * 201 + 5)
    file = format.parse(data)
    for flags, kind in ((data[8] & ~1, 4), (data[8] & ~32, 4), (data[8] | 64, 4), (data[8] | 16, 4), (data[8], 2)):
        with pytest.raises(FormatError):
            format.parse(data[:8] + bytes([flags, kind]) + data[10:])
    header = file.header
    for wrong in (replace(header, span=None), replace(header, deep=False), replace(header, dropped=True)):
        with pytest.raises(FormatError):
            format.serialise(replace(file, header=wrong))


def test_alpha_and_regions_go_along(grey: np.ndarray, model: Model) -> None:
    alpha = np.where(np.arange(grey.shape[1]) % 50 < 40, 255, 7).astype(np.uint8)
    picture = np.dstack([grey, np.broadcast_to(alpha, grey.shape)])
    data = eocodec.compress(picture, rate=60, focus=(10, 10, 40, 40), model=model)
    file = format.parse(data)
    assert file.header.axes == 1 and file.alpha is not None and file.offsets is not None
    assert (eocodec.decompress(data, model)[..., 3] == picture[..., 1]).all()


def test_pillow_opens_them(grey: np.ndarray, model: Model, tmp_path: Path) -> None:
    eocodec.pillow.add_model(str(PATH))
    path = tmp_path / "a.eoc"
    path.write_bytes(eocodec.compress(grey, model=model))
    with Image.open(path) as image:
        assert image.mode == "L" and image.size == grey.shape[::-1]
        assert (np.asarray(image) == eocodec.decompress(path.read_bytes(), model)[..., 0]).all()


def test_more_effort_moves_latents_of_one_axis(grey: np.ndarray, model: Model) -> None:
    pytest.importorskip("torch")
    plain, better = (eocodec.compress(grey, rate=60, tune="psnr", effort=n, model=model) for n in (0, 3))
    assert header_of(better).axes == 1 and better != plain
    original = np.repeat(grey[..., None], 3, 2)
    before, after = (psnr(original, eocodec.decompress(data, model)) for data in (plain, better))
    # A dB is worth a sixth of the bits of a sample that has some, at least 6 % of the bytes.
    assert len(better) / len(plain) < 1 + 0.06 * (after - before)


def test_headers_of_one_axis_that_cannot_be_are_refused(grey: np.ndarray, model: Model) -> None:
    data = bytearray(eocodec.compress(grey, model=model))
    for flags in (data[8] | 4, data[8] | 8, data[8] | 32, data[8] | 64):
        with pytest.raises(FormatError, match="features"):
            format.parse(bytes([*data[:8], flags, *data[9:]]))
    with pytest.raises(FormatError, match="has colours"):
        format.parse(bytes([*data[:8], data[8] & ~1, *data[9:]]))
    with pytest.raises(FormatError, match="features"):
        format.parse(bytes([*data[:9], 3, *data[10:]]))
    file = format.parse(bytes(data))
    for wrong in ({"grey": False}, {"dropped": True}, {"deep": True}, {"embedded": True}, {"page": True}):
        with pytest.raises(FormatError):
            format.serialise(replace(file, header=replace(file.header, **wrong)))


def test_a_part_with_colours_is_refused(grey: np.ndarray, files: dict[str, bytes]) -> None:
    rest = {n: c for n, c in files.items() if n != parts.LIST}
    spoilt = {files["manifest.json"]: "has colours", b"{": "manifest", b'{"gain": [[1], [2]]}': "inconsistent"}
    for content, message in spoilt.items():
        damaged = Model({**rest, f"{FOLDER}manifest.json": content})
        with pytest.raises(ModelError, match=message):
            eocodec.compress(grey, model=damaged)


def test_the_part_may_have_settings_of_its_own(grey: np.ndarray, files: dict[str, bytes]) -> None:
    settings = {tuning: EncoderSettings(tuning=tuning).pack() for tuning in (5, 9)}

    def tuning_with(**names: int) -> int:
        own = {f"{name.replace('_', '/')}.json": settings[tuning] for name, tuning in names.items()}
        both = Model(parts.listed({**{n: c for n, c in files.items() if n != parts.LIST}, **own}))
        return header_of(eocodec.compress(grey, rate=60, tune="eye", model=both)).tuning

    assert (tuning_with(encoder=5), tuning_with(encoder=5, grey_encoder=9), tuning_with(grey_encoder=9)) == (5, 9, 9)


def test_a_bundle_that_is_nothing_but_the_part_is_refused(files: dict[str, bytes]) -> None:
    inside = {n: content for n, content in GreyFiles(files).items() if n != parts.LIST}
    with pytest.raises(ModelError, match="a part of another's bundle"):
        Model(parts.listed(inside))


def test_stripping_the_encoder_takes_both(files: Mapping[str, bytes]) -> None:
    left = parts.strip(files, ("encoder",))
    assert not any("encoder" in name for name in left) and f"{FOLDER}decoder.onnx" in left
    listed = parts.listed({n: c for n, c in files.items() if n != parts.LIST})[parts.LIST]
    assert parts.identity(listed) == parts.identity(files[parts.LIST])


def test_the_part_can_be_added_and_replaced(grey: np.ndarray, files: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from eocodec_export.grey import main

    plain = {n: c for n, c in files.items() if n != parts.LIST and not n.startswith(FOLDER)}
    write_bundle(tmp_path / "plain.eocm", parts.listed(plain))
    for name, content in files.items():
        if name.startswith(FOLDER):
            place = tmp_path / "parts" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    for base in ("plain.eocm", "whole.eocm"):
        main(["add", *(str(tmp_path / name) for name in (base, "parts", "whole.eocm"))])
        assert read_bundle(tmp_path / "whole.eocm") == files


def test_nets_of_luma_alone_do_what_those_for_colour_do_of_grey_pictures() -> None:
    torch = pytest.importorskip("torch")
    from eocodec_export.grey import luma_alone

    from eocodec.flow.context import Steps
    from eocodec.flow.model import PhotoModel
    from eocodec.flow.restored import photo_weights

    config, weights = photo_weights(read_bundle(VECTORS / "small.eocm"))
    colour = PhotoModel(config).eval().requires_grad_(False)
    colour.load_state_dict({**colour.state_dict(), **weights})
    alone = luma_alone(colour, 4).requires_grad_(False)
    torch.manual_seed(0)
    x = torch.rand(1, 1, 48, 64).expand(1, 3, -1, -1)
    luma = [b[:, : (1 if k == 0 else 3)] for k, b in enumerate(colour.flow(x))]
    whole = [torch.cat([b, torch.zeros_like(b).repeat(1, 2, 1, 1)], 1) for b in luma]
    steps = Steps(torch.tensor([0.1]), torch.tensor([0.5]))
    refined = colour.refined(x, whole, steps)
    assert torch.allclose(refined.mean(1, keepdim=True).expand(-1, 3, -1, -1), alone.refined(x, luma, steps), atol=1e-5)
    # Nothing of chroma is known here, so that luma has the same means and costs, level by level, until chroma is coded.
    three, one = colour.latents(whole, steps, 0.1, True), alone.latents(luma, steps, 0.1, True)
    assert torch.equal(three.decoded[1][:, :3], one.decoded[1])


def test_a_flow_with_one_axis_is_invertible_and_preserves_volume() -> None:
    torch = pytest.importorskip("torch")
    from eocodec.flow.photo import PhotoFlow

    torch.manual_seed(1)
    flow = PhotoFlow(levels=2, width=6, steps=1, axes=1).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    bands = flow(x.expand(-1, 3, -1, -1))
    assert [tuple(b.shape) for b in bands] == [(1, 1, 2, 2), (1, 3, 2, 2), (1, 3, 4, 4)]
    assert torch.allclose(flow.inverse(bands), x.expand(-1, 3, -1, -1)) and torch.allclose(flow.grey(bands), x)

    def flat(luma: torch.Tensor) -> torch.Tensor:
        return torch.cat([b.flatten() for b in flow.split(luma.reshape(1, 1, 8, 8))])

    jacobian = torch.autograd.functional.jacobian(flat, x.flatten())
    assert torch.linalg.slogdet(jacobian)[1].abs() < 1e-6


def test_the_ratio_counts_the_samples_that_there_are(tmp_path: Path, chelsea: np.ndarray) -> None:
    grey = np.asarray(Image.fromarray(chelsea[:96, :128]).convert("L"))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(chelsea[:96, :128]).save(tmp_path / "colour.png")
    for name, samples in (("grey", grey.size), ("colour", 3 * grey.size)):
        done = CliRunner().invoke(cli, ["compress", "--json", str(tmp_path / f"{name}.png")])
        row = json.loads(done.stdout)
        assert row["ratio"] == round(samples / row["bytes"], 3)


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_that_no_export_writes_are_refused(case: str) -> None:
    vector, files = MANIFESTS[case]
    with pytest.raises(ModelError, match=SPOILED):
        eocodec.decompress(named(vector, files), Model(files))
