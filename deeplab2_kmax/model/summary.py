"""`model.summary()` of our networks: their parts, and how many parameters each has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from deeplab2_kmax.wording import WIDTH, shortened

_PART_INDENT = 2
# Of the columns for the number of parameters and of the trainable ones.
_NUMBER_WIDTH = 15


class Summary:
    """Gives a `tf.keras.Model` a `summary` that is right for models that are classes.

    Keras reads its table off the calls of layers. Of a network that calls its parts by methods of their own, as ours
    do, it says that whole decoders have "0 (unused)" parameters, and "multiple" in place of output shapes.
    """

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
    ) -> None:
        """Prints the parts of the network with their parameters, and the sums over all of them.

        The arguments are those of `tf.keras.Model.summary`.

        Args:
            line_length: columns of the table; None: 80.
            positions: of Keras' columns; without effect, as are `show_trainable` (the table always has this column) and
                `layer_range`.
            print_fn: is called with each line; None: `print`.
            expand_nested: also list the layers within each part, and those within them.
            show_trainable: see `positions`.
            layer_range: see `positions`.
        """
        for line in _table(self, line_length or WIDTH, expand_nested):
            (print_fn or print)(line)


def _table(model: Any, length: int, expand_nested: bool) -> Iterator[str]:
    """The lines of the summary of a model with variables."""
    yield f'Model "{model.name}" ({type(model).__name__})'
    yield _row("part (layer)", "parameters", "trainable", length)
    yield "=" * length
    listed: set[int] = set()
    # A part may have nothing to do in some configs, as the decoder of an encoder whose stride the masks have.
    for part in (layer for layer in model.layers if layer.variables):
        yield from _rows(part, length, expand_nested)
        listed.update(map(id, part.variables))
    # What no part has, such as the cluster centers of MaX-DeepLab's skeleton.
    for own in (variable for variable in model.variables if id(variable) not in listed):
        name = own.name.split(":")[0].split("/")[-1]
        yield _row(name, _count([own]), _count([own] if own.trainable else []), length)
    total, trainable = _size(model.variables), _size(model.trainable_variables)
    yield "=" * length
    # Keras' words.
    yield f"Total params: {total:,}"
    yield f"Trainable params: {trainable:,}"
    yield f"Non-trainable params: {total - trainable:,}"


def _rows(layer: Any, length: int, expand_nested: bool, depth: int = 0) -> Iterator[str]:
    """The line of a layer, and with `expand_nested` those of the layers within it that have parameters."""
    name = f"{' ' * _PART_INDENT * depth}{layer.name} ({type(layer).__name__})"
    yield _row(name, _count(layer.variables), _count(layer.trainable_variables), length)
    if expand_nested:
        for inner in layer._flatten_layers(recursive=False, include_self=False):
            if inner.variables:
                yield from _rows(inner, length, expand_nested, depth + 1)


def _row(name: str, parameters: str, trainable: str, length: int) -> str:
    width = length - 2 * _NUMBER_WIDTH
    return f"{shortened(name, width - 1):<{width}}{parameters:>{_NUMBER_WIDTH}}{trainable:>{_NUMBER_WIDTH}}"


def _count(variables: Iterable[tf.Variable]) -> str:
    return f"{_size(variables):,}"


def _size(variables: Iterable[tf.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
