"""Models with one latent vector: a small one made here from crops of the samples, through the whole chain."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from eocodec_export.flat import check_parity, export_flat  # noqa: E402

from eocodec import codec, format  # noqa: E402
from eocodec.coding import flat, range_coder  # noqa: E402
from eocodec.denoising import denoise, estimate_sigma  # noqa: E402
from eocodec.errors import EocodecError, FormatError, ModelError  # noqa: E402
from eocodec.flow.dense import Rotation  # noqa: E402
from eocodec.flow.face import FaceConfig, FaceModel  # noqa: E402
from eocodec.metrics import psnr  # noqa: E402
from eocodec.model import transform  # noqa: E402
from eocodec.model.bundle import Model, read_bundle, write_bundle  # noqa: E402
from eocodec.model.rotation import pack_basis, unpack_basis  # noqa: E402

pytestmark = pytest.mark.slow

SIZE = 16
CONFIG = FaceConfig(
    size=SIZE, width=8, core=24, head=4, dense_width=8, blocks=(8, 24), context_width=16, refine_width=6, warm_up=30
)


@pytest.fixture(scope="module")
def crops(samples: dict[str, np.ndarray]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    result = []
    for k in range(320):
        picture = list(samples.values())[k % len(samples)]
        top, left = (int(random.integers(n - SIZE)) for n in picture.shape[:2])
        result.append(np.ascontiguousarray(picture[top : top + SIZE, left : left + SIZE]))
    return result


@pytest.fixture(scope="module")
def trained(crops: list[np.ndarray]) -> FaceModel:
    torch.manual_seed(0)
    model = FaceModel(CONFIG).train()
    model.prepare(torch.from_numpy(np.stack(crops[:256])).permute(0, 3, 1, 2), torch.Generator().manual_seed(0))
    with torch.no_grad():  # couplings and nets that do something
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model


@pytest.fixture(scope="module")
def small(trained: FaceModel, crops: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("flat") / "small.eocm"
    model = export_flat(trained, crops[:256], crops[256:], out, name="small", card="", pictures=64, tiny=3)
    assert Model(read_bundle(out)).id == model.id
    return model


def test_the_flow_starts_at_the_principal_components(crops: list[np.ndarray]) -> None:
    model = FaceModel(replace(CONFIG, warm_up=0))
    pictures = torch.from_numpy(np.stack(crops[:256])).permute(0, 3, 1, 2)
    model.prepare(pictures, torch.Generator().manual_seed(0))
    x = torch.cat([pictures, pictures.flip(3)]).float() / 255
    h = model.flow(x)[:, : CONFIG.core].double()
    spread = torch.linalg.svdvals((x - x.mean(0)).flatten(1).double()) / len(x) ** 0.5
    assert torch.allclose(h.std(0, correction=0), spread[: CONFIG.core], rtol=1e-3)
    covariance = (h - h.mean(0)).T @ (h - h.mean(0)) / len(h)
    off = covariance - torch.diag(covariance.diagonal())
    assert off.abs().max() < 1e-3 * covariance.max()


def test_the_flow_is_exactly_invertible_and_preserves_volume(trained: FaceModel) -> None:
    flow = trained.flow.double()
    try:
        x = torch.rand(2, 3, SIZE, SIZE, dtype=torch.float64)
        assert torch.allclose(flow.inverse(flow(x)).double(), x, atol=1e-5)
        h = flow(x[:1])
        jacobian = torch.func.jacrev(lambda z: flow.inverse(z).flatten())(h)[:, 0]
        assert abs(float(torch.linalg.slogdet(jacobian.detach().double())[1])) < 1e-2
    finally:
        trained.flow.float()


def test_a_rounded_basis_is_still_a_rotation() -> None:
    torch.manual_seed(1)
    rotation = Rotation.from_basis(torch.linalg.qr(torch.randn(300, 140))[0].T.contiguous())
    constants = unpack_basis(pack_basis(rotation.vectors.detach().numpy(), rotation.signs.numpy()))
    x = torch.randn(5, 300)
    want = rotation(x).detach().numpy()
    y = x.numpy()
    for rows, middle in zip(constants["reflections"], constants["middles"], strict=True):
        y = y - y @ rows.T @ middle @ rows
    y = y * constants["signs"]
    assert np.allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)  # exactly orthogonal
    assert np.sqrt(((y - want) ** 2).mean()) < 0.06  # and near the unrounded one
    assert np.abs(y - want)[:, :64].max() < 0.06  # above all the first ones, kept in 16 bits


@pytest.mark.parametrize("spoil", [b"", b"\0" * 7, b"\xff" * 64])
def test_a_spoilt_basis_is_refused(spoil: bytes) -> None:
    with pytest.raises(ModelError):
        unpack_basis(spoil)


def test_torch_and_onnx_agree(trained: FaceModel, small: Model, crops: list[np.ndarray]) -> None:
    pictures = torch.from_numpy(np.stack(crops[256:264])).permute(0, 3, 1, 2)
    differences = check_parity(trained, small, pictures)
    assert differences["encoder"] < 1e-4 and differences["decoder"] < 1e-4 and differences["entropy"] == 0


def test_quality_and_size_rise_with_the_rate(small: Model, crops: list[np.ndarray]) -> None:
    sizes, quality = [], []
    for rate in (2, 12, 60, 400, small.block):
        data = codec.compress(crops[300], rate, model=small)
        sizes.append(len(data))
        quality.append(psnr(crops[300], codec.decompress(data, small)))
    assert sizes == sorted(sizes) and quality == sorted(quality)
    assert quality[-1] > 38


def test_tiny_files_have_two_bytes_of_overhead(small: Model, crops: list[np.ndarray]) -> None:
    for picture in crops[256:272]:
        data = codec.compress(picture, 12, model=small, tiny=True)
        assert format.is_tiny(data) and data[0] == 0xFC
        file = format.parse_tiny(data)
        assert len(data) - len(file.payload) == 2
        whole = codec.compress(picture, 12, model=small)
        assert len(data) < len(whole)
        assert codec.decompress(data, small).shape == (SIZE, SIZE, 3)


def test_streams_are_the_shortest_that_decode_alike(small: Model, crops: list[np.ndarray]) -> None:
    saved = 0
    for picture in crops[256:288]:
        latents = transform.analyse_vector(small, picture)
        for level in (20.0, 80.0):
            code, delta = 32768 + round(2048 * np.log2(level)), level / 255
            rounded = flat.round_latents(small, code, latents, delta)
            writer = range_coder.Writer(range_coder.tables_of(small))
            for m, index in zip(rounded.residuals, rounded.indices, strict=True):
                writer.put(m, index)
            short = writer.shortest()
            decoded = flat.decode(small, code, short, delta)
            words = writer.coder.get_compressed().astype(">u4").tobytes()
            assert np.array_equal(decoded, flat.decode(small, code, words, delta))
            with contextlib.suppress(FormatError):  # one byte less gives something else, or does not decode at all
                assert not np.array_equal(decoded, flat.decode(small, code, short[:-1], delta))
            saved += len(words) - len(short)
    assert saved > 64  # bytes, of 64 streams of whole words


def test_bytes_are_a_limit(small: Model, crops: list[np.ndarray]) -> None:
    largest = len(codec.compress(crops[301], small.flat.blocks[-1], model=small, tiny=True))  # without the rest
    for limit in (8, largest // 2, largest):
        data = codec.compress(crops[301], max_bytes=limit, model=small, tiny=True)
        assert 0.7 * limit <= len(data) <= limit


def test_grey_pictures_stay_grey(small: Model, crops: list[np.ndarray]) -> None:
    grey = crops[302].mean(2).astype(np.uint8)
    for tiny in (False, True):
        decoded = codec.decode_file(codec.compress(grey, 60, model=small, tiny=tiny), small)
        assert decoded.grey and (decoded.rgb == decoded.rgb[..., :1]).all()


def test_other_sizes_are_refused_and_resized_on_request(small: Model, chelsea: np.ndarray) -> None:
    with pytest.raises(EocodecError, match="16x16 pixels, not 451x300"):
        codec.compress(chelsea, 12, model=small)
    data = codec.compress(chelsea, 12, model=small, resize=True)
    assert codec.decompress(data, small).shape == (SIZE, SIZE, 3)


def test_tiny_needs_a_model_that_has_it(chelsea: np.ndarray, small: Model, crops: list[np.ndarray]) -> None:
    with pytest.raises(EocodecError, match="no tiny form"):
        codec.compress(chelsea, 12, model="photo", tiny=True)
    with pytest.raises(EocodecError, match="transparency"):
        codec.compress(np.dstack([crops[0], crops[0][..., :1]]), 12, model=small, tiny=True)
    with pytest.raises(FormatError, match="number 3, which is not installed"):
        codec.decompress(codec.compress(crops[0], 12, model=small, tiny=True))


def test_any_tiny_bytes_decode_or_are_refused(small: Model) -> None:
    random = np.random.default_rng(5)
    for n in range(200):
        data = bytes([0xFC + n % 2]) + random.bytes(int(random.integers(1, 80)))
        try:
            picture = codec.decompress(data, small)
        except FormatError:
            continue
        assert picture.shape == (SIZE, SIZE, 3)


def test_text_is_recognised(small: Model, crops: list[np.ndarray]) -> None:
    import base64

    data = codec.compress(crops[303], 12, model=small, tiny=True)
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"="), base64.b64encode(data) + b"\n"):
        assert format.tiny_from_text(text) == data
    for other in (b"EOC\x01", b"/usr/bin/env", b"", b"\x89PNG", "“quoted”".encode()):
        assert format.tiny_from_text(other) == other and not format.is_tiny(other)


def test_damage_is_detected_in_whole_files(small: Model, crops: list[np.ndarray]) -> None:
    data = bytearray(codec.compress(crops[304], 60, model=small))
    data[-6] ^= 4
    with pytest.raises(FormatError, match="checksum"):
        codec.decompress(bytes(data), small)


def test_every_prefix_of_a_whole_file_decodes_or_is_refused(small: Model, crops: list[np.ndarray]) -> None:
    data = codec.compress(crops[305], 60, model=small)
    flat_picture = None
    for n in range(len(data)):
        try:
            decoded = codec.decode_file(data[:n], small)
        except FormatError as e:
            assert n < 16 and "\n" not in str(e)
            continue
        assert decoded.complete == (n == 15) and decoded.segments == 0  # the header alone is a file without latents
        flat_picture = decoded.rgb if flat_picture is None else flat_picture
        assert np.array_equal(decoded.rgb, flat_picture)
    assert codec.decode_file(data, small).complete


def test_dropping_denoises_and_the_level_is_estimated(small: Model, crops: list[np.ndarray]) -> None:
    random = np.random.default_rng(0)
    noisy_error = clean_error = 0.0
    levels = []
    for picture in crops[256:320]:
        noisy = picture / 255 + random.normal(0, 25 / 255, picture.shape)
        clean = denoise(noisy, 25, model=small)
        noisy_error += float(((noisy - picture / 255) ** 2).mean())
        clean_error += float(((clean - picture / 255) ** 2).mean())
        levels.append(estimate_sigma(noisy, small))
    assert clean_error < 0.7 * noisy_error
    assert 15 < np.median(levels) < 35
    assert np.allclose(denoise(crops[256], 0, model=small), crops[256], atol=1)


def test_keep_top_follows_the_order(small: Model) -> None:
    kept = small.flat.kept(10.5)
    chosen = np.argsort(-np.array(small.flat.entropy), kind="stable")
    assert (kept[chosen[:10]] == 1).all() and kept[chosen[10]] == 0.5 and kept.sum() == 10.5


def test_rate_and_step_are_inverse(small: Model) -> None:
    for rate in (1.0, 7.3, 100.0, float(small.block)):
        assert small.flat.rate_of(small.flat.step_of(rate)) == pytest.approx(rate, rel=1e-6)
    with pytest.raises(EocodecError):
        small.flat.step_of(small.block + 1)


@pytest.mark.parametrize("key", ["gain", "blocks", "water", "size", "shift"])
def test_inconsistent_bundles_are_refused(small: Model, tmp_path: Path, key: str) -> None:
    import json

    manifest = json.loads(small.files["manifest.json"])
    manifest[key] = {"gain": [0.0], "blocks": [5, 3], "water": 0, "size": 8, "shift": []}[key]
    write_bundle(tmp_path / "bad.eocm", {**small.files, "manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(ModelError):
        Model(read_bundle(tmp_path / "bad.eocm"))
