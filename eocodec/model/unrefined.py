"""The decoder graph of a photo model without its refinement: the inverse of the flow alone.

In: the bytes of `decoder.onnx`. Out: a graph that ends where the refinement would be added. At steps too fine for the
refinement it is the same picture for half the work. It is made of the graph's own nodes, so that a bundle needs no
further file; the graph must end as those of `eocodec_export` do, in an `Add` of the flow's picture and the refinement.
"""

from collections.abc import Iterable

from eocodec import varint
from eocodec.errors import ModelError
from eocodec.model.graphs import GRAPH_NODE, MODEL_GRAPH, NODE_OPERATOR, fields, messages

__all__ = ["GRAPH", "unrefined"]

GRAPH = "flow"
"""The name that sessions of such graphs go by."""

# Field numbers beyond those that `eocodec.model.graphs` checks.
GRAPH_OUTPUT, VALUE_NAME = 12, 1
NODE_INPUT, NODE_OUTPUT = 1, 2
PICTURE, STEP = b"picture", b"step"


def unrefined(content: bytes) -> bytes | None:
    """The graph without its refinement, None if it does not end in one that can be told apart."""
    try:
        return _joined((n, _graph(v) if n == MODEL_GRAPH else v) for n, v in fields(memoryview(content)))
    except ModelError:
        return None


def _joined(parts: "Iterable[tuple[int, int | bytes | memoryview]]") -> bytes:
    """A message of these fields."""
    out = []
    for number, value in parts:
        if isinstance(value, int):
            out.append(varint.write(number << 3) + varint.write(value))
        else:
            out.append(varint.write(number << 3 | 2) + varint.write(len(value)) + bytes(value))
    return b"".join(out)


def _graph(graph: "int | memoryview") -> bytes:
    assert not isinstance(graph, int)
    nodes = list(messages(graph, GRAPH_NODE))
    end = _end(nodes)
    needed = _needed(nodes, end)
    if STEP in needed:
        raise ModelError("the flow's own picture depends on the step")
    result: list[tuple[int, int | bytes | memoryview]] = []
    for number, value in fields(graph):
        assert not isinstance(value, int)
        if number == GRAPH_OUTPUT:
            result.append((number, _joined((n, end if n == VALUE_NAME else v) for n, v in fields(value))))
        elif number != GRAPH_NODE or needed & _names(value, NODE_OUTPUT):
            result.append((number, value))
    return _joined(result)


def _names(node: memoryview, which: int) -> set[bytes]:
    return {bytes(name) for name in messages(node, which)}


def _end(nodes: list[memoryview]) -> bytes:
    """The name of what the refinement is added to."""
    for node in nodes:
        if PICTURE in _names(node, NODE_OUTPUT) and b"Add" in _names(node, NODE_OPERATOR):
            return bytes(next(messages(node, NODE_INPUT)))
    raise ModelError("the graph does not end in a sum")


def _needed(nodes: list[memoryview], end: bytes) -> set[bytes]:
    """The names of all that a result is made from."""
    needed = {end}
    for node in reversed(nodes):  # a graph's nodes are in order
        if needed & _names(node, NODE_OUTPUT):
            needed |= _names(node, NODE_INPUT)
    return needed
