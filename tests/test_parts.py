"""Bundles without some of their parts: the same id, the same decoding, clear words for what is missing."""

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import VECTORS, Runner
from PIL import Image

import eocodec
from eocodec.errors import EocodecError, ModelError
from eocodec.metrics import psnr
from eocodec.model import library, parts, shelf
from eocodec.model.bundle import Model, bundle_id, read_bundle, write_bundle
from eocodec.model.delta import write_delta
from eocodec.model.library import Library, load_model
from eocodec.model.shelf import peek_id, shipped_models

SHIPPED = ("photo", "face64")

# Made with `a84efb79` of a crop of coffee.png, C = 24: an ordinary file and an embedded stream.
FILE = (
    "MNdNks80KN5<oxz1|zN@0u3m&FZ}=jApijU1PJ(c-TdzW6qo@TRX(je9tX9&ZR=yvOic`sgCpi>eIbvupBmT$#Rgz{w8LvtJ0a>K"
    "(@`Xd{WI0#sQB&*f^T0;re`%?CyuFG+zI2&d$L|g9N)O0sA%<8=)6jtY(pR-IPl?!txXb(T-JqOO8K~>a>^;xocRGGK)^eZ($NNI"
    "jGoongWH$M@^Cg*p-t78-#V0+y<;tyW+LVJBN3^VogIq"
)
STREAM = (
    "MNdNks80KN1VBIl0000Sm*w5Hv^A8iOA_4L*#RlIO9bJey|o%jU^$y4#K`~vo(;{(PWeb``Z_P2hr`9de+BoPvUfEfIzz|%=ghwy"
    "1Mfo`F@Ao!czogWTo#K^)Kb%XJHJ(#3~XAo(&KDgDT?m84~<@(_=YF(1d`<oRgJ<wYh$1=TiG5(0I@>xe6s"
)
# The same of `b332750c`, whose decoder differs from the shipped one by its refinement and tables.
LATER_FILE = (
    "MNdNkvoduI5I{fx1|zN>6qErjZoI@BEJ>jqyO*~hG)IREpWQ(g@$^%cUT3_C*xA1UL1Pjz_jHCB<<Ck#LG6HJRAe6>ft{+m6IwdFZ{$I"
    "r1OLxP0)BcuGk+2sA#e@xB8!k%d;2@d=kf=rfj_aW9Vq|lT3O8(DIBs0hy}#*MQ;SBtDn^32>Whb1K|+`Is9PmkztuVY|FLtR5la>9hn"
    "cXd|na"
)
LATER_STREAM = (
    "MNdNkvoduI1VBIl0000SYxD)qb-QPfyx2-?O#!X3AGnu<_a(>djh2QzOUD2J+x4H2uQON;yC<uBOex!zU|~(dbnF1Xv69mtua7DkIl6x"
    "YR(7;yw_Y$5q8({e>+a<a$hdC>478IZzhqx5+<=vOk}r22^7)D5TdxnC(2z(Fk}(!ausuvmAvBCZ0iX"
)
# The same of `e39f1b2b`, whose entropy nets, refinement and tables are others.
NEXT_FILE = (
    "MNdNk<DVNV5I{fx1|zN>6p#U&ZoI_uV^e|iEP||$;5B|@W3oEWBZ>6v@s`Kr<8NT0{vfUD^;;%$29F~1E^0z}@v)H#y+SL0SpL$CT*qZV$qY|"
    "Uz16>Fn=a78Ioc|(iD8@70Vx{*@P~#w=@pwI-b|TQvLgP|{zC(@?{ryM&JG_|+!Z{z>W|az*V@`&<L+MV$DRNZUhMTq*rMV*Ra|W"
)
NEXT_STREAM = (
    "MNdNk<DVNV1VBIl0000S=JScp+;ir8CFG>)#p|e~$o7BhkRR5E8Cpz^OUD2J+x4H2uQON;yC<uBOex!zU|~(dbnF1Xv69mtua7DkIl6xYR(7;"
    "yw_Y$5q8({e>+a<a$hdC>478IZzhqx5+<=vOk}r22^7)D5TdxnC(2z(Fk}(!ausuvmAvCXdm-Y"
)


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, bytes]]:
    return {name: read_bundle(shipped_models()[name]) for name in SHIPPED}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_stripped_bundle_has_the_same_id_and_decodes(
    name: str, files: dict[str, dict[str, bytes]], tmp_path: Path, chelsea: np.ndarray
) -> None:
    whole = load_model(name)
    data = eocodec.compress(chelsea[:64, :64], model=whole)
    small = parts.strip(files[name], ("encoder", "denoising", "embedded", "lossless"))
    assert write_bundle(tmp_path / "small.eocm", small) == whole.full_id
    assert not any(n.startswith(("denoise/", "encoder", "embedded/", "lossless/")) for n in small)
    model = load_model(tmp_path / "small.eocm")
    assert (eocodec.decompress(data, model) == eocodec.decompress(data, whole)).all()
    assert Library([model], shipped=False).of_id(whole.id) is model
    with pytest.raises(ModelError, match="lacks the graph encoder"):
        eocodec.compress(chelsea[:64, :64], model=model)


def test_a_list_of_parts_stands_for_what_decoding_needs(files: dict[str, dict[str, bytes]]) -> None:
    listed = parts.listed({**files["photo"], "manifest.json": files["photo"]["manifest.json"] + b"\n"})
    identity = bundle_id(listed)
    assert identity != bundle_id(files["photo"])  # it is another model …
    assert bundle_id(parts.listed({**listed, "denoise/clean.onnx": b"better"})) == identity  # … whatever denoises
    assert bundle_id(parts.listed({**listed, "tables.bin": b"other"})) != identity
    Model(listed)
    for name, content in (("tables.bin", b"x"), ("more.onnx", b""), ("encoder.onnx", b"")):
        with pytest.raises(ModelError, match=rf"{name} is not (what|on) its list of parts"):
            Model({**listed, name: content})


@pytest.mark.slow
def test_contents_are_checked_when_they_are_unpacked(files: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    listed = parts.listed(files["photo"])
    wrong = {**listed, "lossless/tables.bin": listed["lossless/tables.bin"][:-1] + b"x"}
    write_bundle(tmp_path / "wrong.eocm", wrong)
    model = load_model(tmp_path / "wrong.eocm")
    with pytest.raises(ModelError, match=r"lossless/tables\.bin is not what its list of parts says"):
        eocodec.compress(np.zeros((9, 9, 3), np.uint8), model=model, lossless=True)
    write_bundle(tmp_path / "more.eocm", {**listed, "more.onnx": b""})
    with pytest.raises(ModelError, match=r"more\.onnx is not on its list of parts"):
        load_model(tmp_path / "more.eocm")


def test_only_bundles_with_a_list_can_be_stripped(files: dict[str, dict[str, bytes]]) -> None:
    own = {**files["face64"], "compand.bin": files["face64"]["compand.bin"] + b"\x7f"}
    with pytest.raises(ModelError, match="export it again"):
        parts.strip(own, ("encoder",))
    assert bundle_id(parts.strip(parts.listed(own), ("encoder",))) == bundle_id(parts.listed(own))


@pytest.mark.slow
def test_models_are_stripped_by_a_command(call: Runner, tmp_path: Path, chelsea: np.ndarray) -> None:
    whole = load_model("photo")
    made = call("models", "strip", "photo", "--decode-only", "-o", "small.eocm")
    size, before = (p.stat().st_size for p in (tmp_path / "small.eocm", shipped_models()["photo"]))
    assert size < 0.65 * before
    assert made.returncode == 0
    assert made.stdout.decode() == (
        f"small.eocm  id {whole.id.hex()}  {size / 1e6:.1f} MB of {before / 1e6:.1f}  without denoising, encoder\n"
    )
    assert not any(n.startswith(("denoise/", "encoder")) for n in read_bundle(tmp_path / "small.eocm"))
    assert call("models", "strip", "photo", "--decode-only", "-o", "small.eocm").returncode == 1, "it is not replaced"
    made = call("models", "strip", "small.eocm", "--without", "lossless,embedded", "-o", "smaller.eocm", "--json")
    told = json.loads(made.stdout)
    assert told == {
        "path": "smaller.eocm",
        "id": whole.id.hex(),
        "without": ["embedded", "lossless"],
        "bytes": (tmp_path / "smaller.eocm").stat().st_size,
        "bytes_before": (tmp_path / "small.eocm").stat().st_size,
    }
    assert told["bytes"] < 0.85 * size
    small, smaller = (load_model(tmp_path / name) for name in ("small.eocm", "smaller.eocm"))
    for form in ({}, {"progressive": True}, {"lossless": True}):
        data = eocodec.compress(chelsea[:32, :48], **form)
        assert (eocodec.decompress(data, small) == eocodec.decompress(data, whole)).all()
        if not form:
            assert (eocodec.decompress(data, smaller) == eocodec.decompress(data, whole)).all()
            continue
        with pytest.raises(EocodecError, match=r"has no (tables|graphs)"):
            eocodec.decompress(data, smaller)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("photo", "-o", "a.eocm"), "say what to leave out"),
        (("photo", "--without", "decoder", "-o", "a.eocm"), "there are: encoder, denoising, embedded, lossless"),
        (("photo", "--decode-only", "-o", "a.zip"), "must end in .eocm"),
        (("nothing", "--decode-only", "-o", "a.eocm"), "no such model bundle"),
        (("mine.eocm", "--decode-only", "--force", "-o", "mine.eocm"), "is the model itself"),
        (("delta.eocm", "--decode-only", "-o", "a.eocm"), "strip its base instead"),
    ],
)
def test_what_cannot_be_stripped_is_said(
    call: Runner, tmp_path: Path, files: dict[str, dict[str, bytes]], arguments: tuple[str, ...], words: str
) -> None:
    if "mine.eocm" in arguments:
        shutil.copy(shipped_models()["face64"], tmp_path / "mine.eocm")
    if "delta.eocm" in arguments:
        write_delta(
            tmp_path / "delta.eocm", files["photo"], parts.listed({**files["photo"], "denoise/sigma.onnx": b"x"})
        )
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    done = call("models", "strip", *arguments)
    assert done.returncode in (1, 2) and words in done.stderr.decode()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"decoding": 3, "beside": {}}', b'{"decoding": {"a": [1]}, "beside": {}}',
     b'{"decoding": {"a": [1, "zz"]}, "beside": {}}', b'{"decoding": {"a b": [1, ""]}, "beside": {}}', b"\xff"],
)  # fmt: skip
def test_lists_that_are_none_are_refused(content: bytes, files: dict[str, dict[str, bytes]]) -> None:
    with pytest.raises(EocodecError, match="list of parts"):
        Model({**files["face64"], parts.LIST: content})


def test_a_file_is_on_one_side_only(files: dict[str, dict[str, bytes]]) -> None:
    groups = json.loads(parts.listed(files["photo"])[parts.LIST])
    groups["beside"]["tables.bin"] = groups["decoding"]["tables.bin"]
    with pytest.raises(ModelError, match="inconsistent"):
        Model({**files["photo"], parts.LIST: json.dumps(groups).encode()})


def test_files_of_earlier_models_stay_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `photo` is now: the decoder of the one that vectors were made with is found by its id."""
    others = {name: path for name, path in shipped_models().items() if peek_id(path)[:4].hex() != "26cc94c0"}
    monkeypatch.setattr(library, "shipped_models", lambda: others)
    for name in ("colour", "embedded", "lossless"):
        data = (VECTORS / f"{name}.eoc").read_bytes()
        model = Library().of_id(bytes.fromhex("26cc94c0"))
        assert "encoder.onnx" not in model.files
        wanted = np.asarray(Image.open(VECTORS / f"{name}.png").convert("RGB")).astype(int)
        assert np.abs(eocodec.decompress(data) - wanted).max() <= 1


@pytest.mark.parametrize(
    "model, file, quality",
    (
        ("a84efb79", FILE, 33.66),
        ("a84efb79", STREAM, 33.03),
        ("b332750c", LATER_FILE, 33.86),
        ("b332750c", LATER_STREAM, 33.10),
        ("e39f1b2b", NEXT_FILE, 34.14),
        ("e39f1b2b", NEXT_STREAM, 33.34),
    ),
)
def test_a_model_that_shares_a_flow_is_kept_as_a_delta(
    model: str, file: str, quality: float, samples: dict[str, Any]
) -> None:
    """Files of models whose flow is that of another: their decoders are made of both."""
    data = base64.b85decode(file)
    assert data[4:8].hex() == model
    assert psnr(samples["coffee"][100:164, 200:264], eocodec.decompress(data)) == pytest.approx(quality, abs=0.02)
    kept = Library().of_id(data[4:8])
    assert kept.full_id.hex().startswith(model)
    assert ("encoder.onnx" in kept.files) == (model != "a84efb79")  # a delta of the shipped bundle has one
    assert (installed := shelf.plate_of(data[4:8])) is not None and installed.name == "photo"


@pytest.mark.slow
def test_lossless_files_of_a_model_that_is_kept_as_a_delta(samples: dict[str, Any]) -> None:
    picture = samples["coffee"][100:180, 200:290]
    data = eocodec.compress(picture, lossless=True, model=Library().of_id(bytes.fromhex("a84efb79")))
    assert hashlib.sha256(data).hexdigest() == "65bbda853f24f4f856172ddd80c129ea173ad602e3a2724715a4b6a9199d6f77"
    assert (eocodec.decompress(data) == picture).all()  # without being given the model
