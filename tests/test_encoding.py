"""Settings of encoders: they stand beside what decoding needs, are checked, and are what files are made with."""

import json
from dataclasses import replace

import numpy as np
import pytest

from eocodec import codec, format
from eocodec.errors import ModelError
from eocodec.metrics import psnr
from eocodec.model import parts
from eocodec.model.bundle import Model, bundle_id
from eocodec.model.encoding import SETTINGS, EncoderSettings
from eocodec.model.library import bundle_files, shipped_models


@pytest.fixture(scope="module")
def photo() -> dict[str, bytes]:
    return dict(bundle_files(shipped_models()["photo"]))


def _with(files: dict[str, bytes], content: bytes | None) -> Model:
    """The bundle with other settings, or without any."""
    rest = {n: c for n, c in files.items() if n not in (parts.LIST, SETTINGS)}
    return Model(parts.listed(rest if content is None else {**rest, SETTINGS: content}), threads=1)


@pytest.mark.slow
def test_other_settings_make_other_files_of_the_same_model(photo: dict[str, bytes], chelsea: np.ndarray) -> None:
    picture = chelsea[:96, :160]
    shipped = Model(photo, threads=1)
    found = shipped.encoding
    assert EncoderSettings.of({SETTINGS: found.pack()}, shipped.manifest) == found
    others = {
        "eye": [replace(found, tuning=9), replace(found, masking=0.6), replace(found, eye_dead_zone=(0.5,) * 5)],
        "psnr": [replace(found, dead_zone=(0.5,) * 5)],
    }
    for tune, settings in others.items():
        usual = codec.compress(picture, rate=60, model=shipped, tune=tune)
        for other in settings:
            model = _with(photo, other.pack())
            assert model.full_id == shipped.full_id == bundle_id(photo)
            data = codec.compress(picture, rate=60, model=model, tune=tune)
            assert data != usual
            assert (codec.decompress(data, shipped) == codec.decompress(data, model)).all()
            assert format.parse(data).header.tuning == (other.tuning if tune == "eye" else 0)


def test_without_settings_the_manifest_s_hold(photo: dict[str, bytes]) -> None:
    model = _with(photo, None)
    assert model.encoding == EncoderSettings(eye_dead_zone=tuple(model.manifest.eye_dead_zone))
    assert model.encoding.weights(eye=False) == ()
    assert model.encoding.tuning == format.MAX_TUNING


@pytest.mark.slow
def test_the_eye_s_files_lose_less_squared_error_than_without_settings(
    photo: dict[str, bytes], coffee: np.ndarray
) -> None:
    picture = coffee[60:220, 100:260]
    plain, shipped = _with(photo, None), Model(photo, threads=1)
    size = len(codec.compress(picture, rate=30, model=plain))
    results = [
        psnr(picture, codec.decompress(codec.compress(picture, max_bytes=size, model=m), m)) for m in (plain, shipped)
    ]
    assert results[1] > results[0] + 0.1


@pytest.mark.parametrize(
    "change",
    [{"tuning": 0}, {"tuning": 33}, {"tuning": 28.5}, {"tuning": True}, {"masking": -0.1}, {"masking": 9},
     {"masking": float("nan")}, {"masking": None}, {"masking": True}, {"dead_zone": [True] * 5},
     {"dead_zone": [0.1]}, {"dead_zone": [0.1] * 6},
     {"eye_dead_zone": [-1] * 5}, {"eye_dead_zone": [float("inf")] * 5}, {"dead_zone": ["x"] * 5}, {"dead_zone": 0.1},
     {"other": 1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(photo: dict[str, bytes], change: dict[str, object]) -> None:
    raw = {**json.loads(photo[SETTINGS]), **change}
    with pytest.raises(ModelError, match="settings for encoders"):
        _ = _with(photo, json.dumps(raw).encode()).encoding


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"7", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"masking":1' + b"0" * 400 + b"}",
     b'{"' + b"x" * 100_000 + b'":1}'],
)  # fmt: skip
def test_settings_that_are_none_are_refused(photo: dict[str, bytes], content: bytes) -> None:
    with pytest.raises(ModelError, match="settings for encoders") as caught:
        _ = _with(photo, content).encoding
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["manifest.json", parts.LIST])
def test_hostile_manifests_and_lists_are_refused_in_a_sentence(photo: dict[str, bytes], name: str) -> None:
    for content in (b"[" * 100_000, b'{"a":' * 100_000, b'{"dead_zone":1' + b"0" * 400 + b"}"):
        files = {**photo, name: content}
        with pytest.raises(ModelError) as caught:
            Model(files if name == parts.LIST else parts.listed({k: v for k, v in files.items() if k != parts.LIST}))
        assert len(str(caught.value)) < 200
