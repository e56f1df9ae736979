"""A bundle's graphs are arithmetic and nothing else: hostile ones are refused before a runtime sees them."""

import contextlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eocodec
from eocodec.errors import ModelError
from eocodec.model.bundle import Model, read_bundle, write_bundle
from eocodec.model.graphs import check_graph
from eocodec.model.library import load_model, shipped_models
from eocodec.model.parts import listed
from eocodec.model.shelf import earlier_models

onnx = pytest.importorskip("onnx", reason="onnx, of the extra train, is not installed")


def model(*nodes: "onnx.NodeProto", **more: object) -> "onnx.ModelProto":
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    return onnx.helper.make_model(onnx.helper.make_graph(list(nodes), "g", [x], [y], **more))


ADD = ("Add", ["x", "x"], ["y"])


def test_the_shipped_graphs_pass() -> None:
    for path in shipped_models().values():
        graphs = [v for k, v in read_bundle(path).items() if k.endswith(".onnx")]
        assert len(graphs) > 5
        for graph in graphs:
            check_graph(graph)


def test_a_plain_graph_passes() -> None:
    weight = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    check_graph(model(onnx.helper.make_node(*ADD), initializer=[weight]).SerializeToString())


def hostile() -> "dict[str, onnx.ModelProto]":
    make = onnx.helper.make_node
    inner = model(make(*ADD)).graph
    external = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    external.data_location = onnx.TensorProto.EXTERNAL
    external.external_data.add(key="location", value="../../etc/passwd")
    only_listed = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    only_listed.external_data.add(key="location", value="/etc/passwd")
    many = onnx.numpy_helper.from_array(np.ones((1,) * 9, np.float32), "w")
    function = onnx.helper.make_function("d", "f", ["a"], ["b"], [make("Add", ["a", "a"], ["b"])], [])
    with_function = model(make(*ADD))
    with_function.functions.append(function)
    sparse = onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(np.ones(1, np.float32), "s"),
        onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i"),
        [4],
    )
    twice = model(make(*ADD))
    twice.graph.node[0].domain = "com.microsoft"
    return {
        "domain": twice,
        "operator": model(make("Loop", ["x"], ["y"])),
        "custom": model(make("ReadFile", ["x"], ["y"], domain="evil")),
        "subgraph": model(make("If", ["x"], ["y"], then_branch=inner, else_branch=inner)),
        "hidden subgraph": model(make("Add", ["x", "x"], ["y"], body=inner)),
        "external": model(make(*ADD), initializer=[external]),
        "external, unmarked": model(make(*ADD), initializer=[only_listed]),
        "external constant": model(make("Constant", [], ["y"], value=external)),
        "many dimensions": model(make(*ADD), initializer=[many]),
        "function": with_function,
        "sparse": model(make(*ADD), sparse_initializer=[sparse]),
        "nameless": model(make("", ["x"], ["y"])),
        "many nodes": model(*[make(*ADD)] * 20_001),
    }


@pytest.mark.parametrize("kind", list(hostile()))
def test_hostile_graphs_are_refused(kind: str) -> None:
    with pytest.raises(ModelError):
        check_graph(hostile()[kind].SerializeToString())


def test_a_graph_in_a_field_that_32_bits_would_take_for_another_is_refused() -> None:
    """ONNX Runtime keeps 32 bits of a field's key: what looks like an unknown field would be a second graph to it."""
    plain = model(onnx.helper.make_node(*ADD)).SerializeToString()
    more = model(onnx.helper.make_node("Loop", ["x"], ["y"])).graph.SerializeToString()
    for key in (b"\xba\x80\x80\x80\x10", b"\xba\x80\x80\x80\x80\x01"):
        with pytest.raises(ModelError, match="not known"):
            check_graph(plain + key + bytes([len(more)]) + more)


@pytest.mark.parametrize("graph", ["entropy/feature4", "entropy/luma4_0", "lossless/3_0_features", "lossless/3_0_1"])
@pytest.mark.parametrize("spoilt", ["rank", "places", "outputs", "scales"])
def test_integer_nets_that_give_something_else_are_refused(graph: str, spoilt: str, chelsea: np.ndarray) -> None:
    """They gave tracebacks of NumPy: too few dimensions, places or outputs, indices of scales that there are not."""
    files = dict(read_bundle(shipped_models()["photo"]))
    net = onnx.load_from_string(files[f"{graph}.onnx"])
    first = net.graph.output[0]
    kind, name = first.type.tensor_type.elem_type, first.name
    extra: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    if spoilt == "scales" and len(net.graph.output) < 2:
        return  # it gives none
    if spoilt == "outputs":
        net.graph.output.append(onnx.helper.make_tensor_value_info("more", kind, None))
        extra.append(onnx.helper.make_node("Identity", [name], ["more"]))
    elif spoilt == "scales":
        index = net.graph.output[1]
        constants.append(onnx.numpy_helper.from_array(np.array(200, np.uint8), "large"))
        extra.append(onnx.helper.make_node("Max", [index.name, "large"], ["spoilt"]))
        net.graph.output[1].name = "spoilt"
    else:
        axis = {"rank": 0, "places": 3}[spoilt]
        constants.append(onnx.numpy_helper.from_array(np.array([axis], np.int64), "axis"))
        if spoilt == "rank":
            extra.append(onnx.helper.make_node("Squeeze", [name, "axis"], ["spoilt"]))
        else:
            extra.append(onnx.helper.make_node("Concat", [name, name], ["spoilt"], axis=3))
        new = onnx.helper.make_tensor_value_info("spoilt", kind, None)
        net.graph.output[0].CopyFrom(new)
    net.graph.node.extend(extra)
    net.graph.initializer.extend(constants)
    model = Model(listed({**files, f"{graph}.onnx": net.SerializeToString()}))
    with pytest.raises(ModelError, match=r"something else|failed|cannot be opened"):
        eocodec.compress(chelsea[:40, :40], lossless=graph.startswith("lossless"), model=model)


def test_a_bundle_with_a_hostile_graph_is_refused_when_the_graph_is_wanted() -> None:
    files = dict(read_bundle(shipped_models()["photo"]))
    files["encoder.onnx"] = hostile()["external"].SerializeToString()
    with pytest.raises(ModelError, match="other files"):
        Model(listed(files)).run("encoder", {"picture": np.zeros((1, 3, 32, 32), np.float32)})


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_accepted_or_refused_with_a_sentence(data: st.DataObject) -> None:
    base = load_model("face64").files["entropy/block0.onnx"]
    mutated = bytearray(base[: data.draw(st.integers(0, len(base)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if mutated:
            mutated[data.draw(st.integers(0, min(len(mutated), 4000) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelError):
        check_graph(bytes(mutated))


@pytest.mark.slow
def test_a_bundle_whose_content_is_not_that_of_its_id_is_refused(tmp_path: Path) -> None:
    good = shipped_models()["face64"]
    files = read_bundle(good)
    write_bundle(tmp_path / "same.eocm", files)
    assert load_model(tmp_path / "same.eocm").full_id == load_model("face64").full_id
    files["compand.bin"] = files["compand.bin"][:-1] + b"\x01"
    write_bundle(tmp_path / "other.eocm", files)
    with zipfile.ZipFile(tmp_path / "other.eocm", "a") as archive:
        archive.comment = load_model("face64").full_id.hex().encode()
    with pytest.raises(ModelError, match="does not have the content"):
        load_model(tmp_path / "other.eocm")


def test_only_what_comes_with_the_package_is_opened_without_a_check(tmp_path: Path) -> None:
    copied = tmp_path / "photo.eocm"
    shutil.copy(shipped_models()["photo"], copied)
    assert load_model("photo").runtime.trusted and load_model(shipped_models()["photo"]).runtime.trusted
    assert all(load_model(p).runtime.trusted for p in earlier_models())
    assert not load_model(copied).runtime.trusted and not Model(load_model("photo").files).runtime.trusted


@pytest.mark.slow
def test_bundles_that_unpack_to_too_much_are_refused_before_they_are(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.eocm", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(5):
            archive.writestr(f"{k}.onnx", bytes(60 << 20))
    with pytest.raises(ModelError, match="larger than allowed"):
        read_bundle(tmp_path / "bomb.eocm")
    assert (tmp_path / "bomb.eocm").stat().st_size < 1 << 20


@pytest.mark.parametrize(("entries", "size"), [(257, 0), (1, (64 << 20) + 1), (5, 60 << 20)])
def test_bundles_that_readers_refuse_are_not_written(entries: int, size: int, tmp_path: Path) -> None:
    content = bytes(size)
    with pytest.raises(ModelError, match=r"large\.eocm: the model bundle is larger than allowed"):
        write_bundle(tmp_path / "large.eocm", {f"{k}.onnx": content for k in range(entries)})
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_may_have_256_entries(tmp_path: Path) -> None:
    files = {f"{k}.onnx": b"" for k in range(256)}
    write_bundle(tmp_path / "many.eocm", files)
    assert read_bundle(tmp_path / "many.eocm") == files


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("low_index", [[[663]]]),
        ("low_index", 3),
        ("low_index", [[[0]]] * 3),
        ("low_index", [[[0]] * 5 + [[]]] * 3),
        ("gain", None),
        ("shift", [[9000, 0, 0]] * 64),
        ("gain", [[1e300] * 3] + [[0.0] * 9] * 4),
        ("water", "much"),
        ("refine_from", float("nan")),
    ],
)
def test_numbers_out_of_range_in_a_manifest_are_refused(field: str, value: object) -> None:
    files = dict(read_bundle(shipped_models()["photo"]))
    manifest = json.loads(files["manifest.json"])
    manifest[field] = value
    with pytest.raises(ModelError, match=r"inconsistent|out of range"):
        Model(listed({**files, "manifest.json": json.dumps(manifest).encode()}))
