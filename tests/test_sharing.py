"""Parts of one bundle for another with the same flow."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from eocodec_export.sharing import add_parts, same_flow

from eocodec.errors import ModelError
from eocodec.model import parts
from eocodec.model.bundle import Model, bundle_id, read_bundle, write_bundle
from eocodec.model.library import shipped_models

LACKING = ("lossless/", "embedded/", "progressive.bin", "denoise/", "grey/")


def bare(change: float = 0.0) -> dict[str, bytes]:
    """The shipped photo model without parts, its steps changed."""
    files = read_bundle(shipped_models()["photo"])
    files = {n: c for n, c in files.items() if not n.startswith(LACKING) and n != parts.LIST}
    manifest = json.loads(files["manifest.json"])
    manifest["gain"][1][0] += change
    return {**files, "manifest.json": json.dumps(manifest).encode()}


@pytest.mark.slow
def test_parts_go_to_a_bundle_with_the_same_flow(tmp_path: Path) -> None:
    photo = shipped_models()["photo"]
    write_bundle(tmp_path / "bare.eocm", bare())
    lines: list[str] = []
    model = add_parts(tmp_path / "bare.eocm", photo, tmp_path / "whole.eocm", lines.append)
    assert {line.split(":")[0] for line in lines} == {"lossless", "embedded", "denoising", "grey"}
    files, source = read_bundle(tmp_path / "whole.eocm"), read_bundle(photo)
    assert {n for n in files if n != parts.LIST} == {n for n in source if n != parts.LIST}
    assert all(files[n] == source[n] for n in files if n.startswith(LACKING))
    assert bundle_id(files) == model.full_id


@pytest.mark.slow
def test_parts_that_see_latents_need_the_same_steps(tmp_path: Path) -> None:
    photo = Model(read_bundle(shipped_models()["photo"]))
    assert same_flow(Model(bare()), photo)
    assert not same_flow(Model(bare(0.1)), photo)
    write_bundle(tmp_path / "other.eocm", bare(0.1))
    with pytest.raises(ModelError, match="its flow is another"):
        add_parts(tmp_path / "other.eocm", shipped_models()["photo"], tmp_path / "whole.eocm")
    assert not (tmp_path / "whole.eocm").exists()
    rest = {
        n: c
        for n, c in read_bundle(shipped_models()["photo"]).items()
        if n.startswith(("embedded/", "progressive", "denoise/"))
    }
    write_bundle(tmp_path / "other.eocm", {**bare(0.1), **rest})
    lines: list[str] = []
    files = add_parts(tmp_path / "other.eocm", shipped_models()["photo"], tmp_path / "whole.eocm", lines.append).files
    assert any(n.startswith("lossless/") for n in files) and not any(n.startswith("grey/") for n in files)
    assert any(line.startswith("grey: left out") for line in lines)
