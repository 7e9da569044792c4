"""A small writer of ONNX graphs whose weights go straight to an external data file.

Contract: each weight is appended to the data file the moment it is named and then forgotten, so
memory stays at one tensor however large the model is. Nothing is left for an optimizer to find:
callers name the fused operators themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

import numpy as np
import onnx_ir as ir

from export.precision import Precision
from export.quantize import quantize

CONTRIB = "com.microsoft"
# Opset 20 is the newest whose every operator used here ONNX Runtime 1.23 has kernels for.
OPSETS = {"": 20, CONTRIB: 1}
IR_VERSION = 10
# Weights start on page boundaries, so that they can be memory-mapped.
ALIGNMENT = 4096
# Smaller tensors stay in the graph file, where constant folding can see them.
INLINE_BYTES = 1024
# Added to the score of a token that another may not attend to; finite, in float16 too, so that a
# row that attends to nothing stays finite until it is blanked.
BLOCKED = np.float32(-6e4)

FLOAT = ir.DataType.FLOAT
FLOAT16 = ir.DataType.FLOAT16
INT32 = ir.DataType.INT32
INT64 = ir.DataType.INT64
BOOL = ir.DataType.BOOL


class Graph:
    """Builds one ONNX model in `folder/name` with its weights in `folder/name.data`.

    A context manager: leaving it writes the graph file, unless an error is what leaves it.

    Attributes:
        path: of the graph file.
        precision: of linear layers.
        real: type of activations; what callers give as float32 is stored so.

    Example:
        with Graph(folder, "double.onnx", INT8) as graph:
            x = graph.input("x", FLOAT, [1, 64])
            graph.output(graph.linear(x, "layer", 2 * np.eye(64)), "y", FLOAT, [1, 64])
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        precision: Precision,
        wrote: Callable[[int], None] = lambda parameters: None,
    ) -> None:
        """
        Args:
            folder: where both files go.
            name: file name of the graph.
            precision: of linear layers.
            wrote: called with the number of parameters after each weight, for progress.
        """
        self.path = folder / name
        self.precision = precision
        self.real = FLOAT16 if precision.activations == 16 else FLOAT
        self._wrote = wrote
        self._data: BinaryIO = (folder / f"{name}.data").open("wb")
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._count = 0

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._data.close()
        if error is None:
            self._save()

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Declare a graph input; strings name dynamic axes."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self._inputs.append(value)
        return value

    def real_input(self, name: str, shape: Sequence[int | str]) -> ir.Value:
        """A float32 input as a value of type `real`."""
        return self._cast(self.input(name, FLOAT, shape), self.real)

    def output(
        self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]
    ) -> None:
        """Declare `value` a graph output called `name`."""
        value.name = name
        value.shape, value.type = ir.Shape(shape), ir.TensorType(dtype)
        self._outputs.append(value)

    def real_output(self, value: ir.Value, name: str, shape: Sequence[int | str]) -> None:
        """A value of type `real` as a float32 output."""
        self.output(self._cast(value, FLOAT), name, FLOAT, shape)

    def weight(self, name: str, array: np.ndarray) -> ir.Value:
        """An initializer, of type `real` if it is float32; named twice it is the same value."""
        if name in self._initializers:
            return self._initializers[name]
        array = np.asarray(array, order="C")
        if self.real == FLOAT16 and array.dtype == np.float32:
            array = array.astype(np.float16)
        tensor = (
            ir.Tensor(array, name=name)
            if array.nbytes < INLINE_BYTES
            else self._external(name, array)
        )
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._initializers[name] = value
        self._wrote(array.size)
        return value

    def constant(self, *values: int) -> ir.Value:
        """An int64 vector, shared by all that ask for the same one."""
        return self.weight("const." + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    @overload
    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: Literal[1] = 1,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value: ...

    @overload
    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int,
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]: ...

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value | list[ir.Value]:
        """Append a node; returns its output value, or a list of them where `outputs` > 1."""
        values = [self._value(op_type) for _ in range(outputs)]
        self._nodes.append(
            ir.node(op_type, inputs, attributes or None, domain=domain, outputs=values)
        )
        return values[0] if outputs == 1 else values

    def linear(
        self,
        x: ir.Value,
        name: str,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        role: str = "",
    ) -> ir.Value:
        """`x @ weight.T + bias` with `weight [out, in]`, in the precision of `role`.

        The weight may be of any float type, also of `ml_dtypes`; it is converted by rows where it
        is quantized, so that a large one needs no second copy.
        """
        precision = self.precision.of(role)
        if precision.bits >= 16:
            transposed = np.asarray(weight.T, dtype=np.float32, order="C")
            x = self.op("MatMul", x, self.weight(f"{name}.weight", transposed))
        else:
            x = self._quantized_linear(x, name, weight, precision)
        return x if bias is None else self.op("Add", x, self.weight(f"{name}.bias", bias))

    def either(
        self,
        condition: ir.Value,
        then: Callable[[], ir.Value],
        otherwise: Callable[[], ir.Value],
    ) -> ir.Value:
        """`then()` where the scalar bool `condition` holds, else `otherwise()`; only one runs."""
        branches = {
            f"{key}_branch": ir.AttrGraph(f"{key}_branch", self._branch(build))
            for key, build in (("then", then), ("else", otherwise))
        }
        result = self._value("If")
        self._nodes.append(ir.Node("", "If", [condition], branches, outputs=[result]))
        return result

    def _save(self) -> None:
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports=OPSETS,
            name=self.path.stem,
        )
        ir.save(ir.Model(graph, ir_version=IR_VERSION, producer_name="mmgpt-lite"), self.path)

    def _quantized_linear(
        self, x: ir.Value, name: str, weight: np.ndarray, precision: Precision
    ) -> ir.Value:
        packed = quantize(weight, precision.bits, precision.block)
        return self.op(
            "MatMulNBits",
            x,
            self.weight(f"{name}.codes", packed.codes),
            self.weight(f"{name}.scales", packed.scales),
            domain=CONTRIB,
            K=weight.shape[1],
            N=weight.shape[0],
            bits=packed.bits,
            block_size=packed.block,
            # Activations in int8 too: any other level is 3 times slower at 4 bits on a CPU and
            # 90 times at 8. GPUs have no such kernels, and a CPU's for float16 are inexact.
            accuracy_level=4 if self.real == FLOAT else 0,
        )

    def _external(self, name: str, array: np.ndarray) -> ir.ExternalTensor:
        start = -(-self._data.tell() // ALIGNMENT) * ALIGNMENT
        self._data.seek(start)
        self._data.write(array.data)
        return ir.ExternalTensor(
            f"{self.path.name}.data",
            start,
            array.nbytes,
            ir.DataType.from_numpy(array.dtype),
            shape=ir.Shape(array.shape),
            name=name,
            base_dir=self.path.parent,
        )

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        return value if self.real == FLOAT else self.op("Cast", value, to=int(to))

    def _branch(self, build: Callable[[], ir.Value]) -> ir.Graph:
        with self._collecting() as nodes:
            result = self.op("Identity", build())
        return ir.Graph([], [result], nodes=nodes, name=self._name("branch"))

    @contextmanager
    def _collecting(self) -> Iterator[list[ir.Node]]:
        outer, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outer

    def _value(self, kind: str) -> ir.Value:
        return ir.Value(name=self._name(kind))

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"
