"""What an ONNX graph of a bundle may hold, checked before a runtime sees it: a graph is data, never code.

In: the bytes of an ONNX model. Out: nothing, or a :class:`ModelError`. Only what decides about safety is read, from the
protocol buffer itself, so that no further package is needed.

References:
    ONNX, *onnx.proto*: field numbers of ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto.
    https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterator

from eocodec import varint
from eocodec.errors import ModelError

__all__ = ["OPERATORS", "check_graph", "fields", "messages"]

# Arithmetic on tensors: none of them runs other graphs, calls out of the runtime, or touches files.
# fmt: off
OPERATORS = frozenset((
    "Abs", "Add", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "DepthToSpace",
    "DequantizeLinear", "Div", "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "Gemm", "Greater", "Identity",
    "Less", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Pad", "Pow", "QLinearConv", "QuantizeLinear", "Reciprocal",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Shape", "Sigmoid", "Sign", "Slice", "Softplus", "SpaceToDepth",
    "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
))
# fmt: on
MAX_NODES = 20_000
MAX_RANK = 8
LONGEST_NUMBER = 10  # bytes
STANDARD = (b"", b"ai.onnx")

# Field numbers.
MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS, ATTRIBUTE_NESTED = 5, 10, (6, 11, 22, 23)  # nested: graphs, sparse tensors
TENSOR_DIMENSIONS, TENSOR_EXTERNAL, TENSOR_LOCATION = 1, 13, 14

Field = tuple[int, "int | memoryview"]


def _number(data: memoryview, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:  # most are this short
        return data[at], at + 1
    try:
        return varint.read(data, at, LONGEST_NUMBER, padded=True)
    except varint.Truncated:
        raise ModelError("the graph is cut off") from None
    except varint.Overlong:
        raise ModelError("the graph holds a number that is too long") from None


def fields(data: memoryview) -> Iterator[Field]:
    """Number and content of every field of a message: an integer, or the bytes of anything else."""
    at, end = 0, len(data)
    while at < end:
        key, at = _number(data, at)
        if key >> 32:  # ONNX Runtime's reader keeps 32 bits of it and would see another field
            raise ModelError("the graph holds a field of a kind that is not known")
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _number(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _number(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ModelError("the graph holds a field of a kind that is not known")
        if at + length > end:
            raise ModelError("the graph is cut off")
        yield number, data[at : at + length]
        at += length


def messages(data: memoryview, *numbers: int) -> Iterator[memoryview]:
    """The contents of a message's fields of these numbers.

    Raises:
        ModelError: one is a number.
    """
    for number, value in fields(data):
        if number in numbers:
            yield _message(value)


def _message(value: "int | memoryview") -> memoryview:
    if isinstance(value, int):
        raise ModelError("the graph holds a number where a message belongs")
    return value


def check_graph(content: bytes) -> None:
    """Refuse graphs that hold anything but arithmetic of the standard operators on tensors of their own.

    Raises:
        ModelError: other operators or domains, functions, subgraphs, sparse tensors, tensors in other files, too many
            nodes, or no protocol buffer at all.
    """
    model = memoryview(content)
    graphs = 0
    for number, value in fields(model):
        if number in (MODEL_TRAINING, MODEL_FUNCTIONS):
            raise ModelError("the graph holds functions or training, which a bundle must not")
        if number == MODEL_GRAPH:
            graphs += 1
            _check(_message(value))
    if graphs != 1:
        raise ModelError("the graph is missing")


def _check(graph: memoryview) -> None:
    nodes = 0
    for number, value in fields(graph):
        if number == GRAPH_NODE:
            nodes += 1
            if nodes > MAX_NODES:
                raise ModelError(f"the graph holds more than {MAX_NODES} nodes")
            _check_node(_message(value))
        elif number == GRAPH_INITIALIZER:
            _check_tensor(_message(value))
        elif number == GRAPH_SPARSE:
            raise ModelError("the graph holds sparse tensors, which a bundle must not")


def _check_node(node: memoryview) -> None:
    operators, standard = [], True
    for number, value in fields(node):
        if number == NODE_OPERATOR:
            operators.append(bytes(_message(value)).decode("ascii", "replace"))
        elif number == NODE_DOMAIN:
            standard &= bytes(_message(value)) in STANDARD
        elif number == NODE_ATTRIBUTE:
            _check_attribute(_message(value))
    if not standard or len(operators) != 1 or operators[0] not in OPERATORS:
        name = ", ".join(operators)[:40]
        raise ModelError(f"the graph holds an operator that a bundle must not: {name or 'without a name'}")


def _check_attribute(attribute: memoryview) -> None:
    for number, value in fields(attribute):
        if number in ATTRIBUTE_NESTED:
            raise ModelError("the graph holds subgraphs or sparse tensors, which a bundle must not")
        if number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
            _check_tensor(_message(value))


def _check_tensor(tensor: memoryview) -> None:
    rank = 0
    for number, value in fields(tensor):
        if number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value != 0):
            raise ModelError("the graph wants tensors from other files, which a bundle must not")
        rank += number == TENSOR_DIMENSIONS
    if rank > MAX_RANK:
        raise ModelError("the graph holds a tensor of too many dimensions")
