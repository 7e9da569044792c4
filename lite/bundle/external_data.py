"""Which files an ONNX graph would make the runtime open.

Contract: reads just enough of the protobuf wire format to list every external data location, in
the main graph, in subgraphs and in attributes, without the onnx package; bytes that do not parse
are an error, never skipped. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lite.errors import BadInput

# Which fields of a message lead to another message of interest: message -> {field: message}.
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
KEY, VALUE = 1, 2


def external_locations(graph: Path) -> set[str]:
    """The `location` of every external tensor in an ONNX file.

    Raises:
        BadInput: the file is not a well-formed ONNX graph.
    """
    try:
        return set(_locations(memoryview(graph.read_bytes()), "model"))
    except (ValueError, IndexError, RecursionError):
        raise BadInput(
            f"{graph} is not a readable ONNX graph; export or copy the bundle again."
        ) from None


def _locations(data: memoryview, message: str) -> Iterator[str]:
    if message == "entry":
        fields = {number: bytes(value) for number, value in _length_delimited(data)}
        if fields.get(KEY) == b"location":
            yield fields.get(VALUE, b"").decode()
        return
    for number, value in _length_delimited(data):
        inner = FIELDS[message].get(number)
        if inner:
            yield from _locations(value, inner)


def _length_delimited(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, bytes) of each length-delimited field of one message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag >> 32:  # protobuf drops the upper bits, and would see another field than we do
            raise ValueError("field number too large")
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field runs past the end")
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(data):
            raise ValueError("a field runs past the end")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
