"""`model.summary()` counts what is there and fits a terminal."""

import math

import pytest

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model


@pytest.fixture(scope="module", params=["kmax_tiny", "max_deeplab_tiny"])
def model(request, configs, tiny_overrides, tiny_max_overrides):
    overrides = tiny_overrides if request.param == "kmax_tiny" else tiny_max_overrides
    return build_model(load_config(str(configs / "shapes" / f"{request.param}.textproto"), overrides))


def _summary(model, **arguments):
    lines = []
    model.summary(print_fn=lines.append, **arguments)
    return lines


def _size(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def _number(text):
    return int(text.replace(",", ""))


def test_the_sums_are_those_of_the_variables(model):
    sums = dict(line.split(" params: ") for line in _summary(model) if " params: " in line)
    assert _number(sums["Total"]) == _size(model.variables)
    assert _number(sums["Trainable"]) == _size(model.trainable_variables)
    assert _number(sums["Non-trainable"]) == _size(model.non_trainable_variables) > 0


def test_the_parts_add_up_and_none_is_empty(model):
    lines = _summary(model)
    first, last = (place for place, line in enumerate(lines) if set(line) == {"="})
    rows = [line.split() for line in lines[first + 1 : last]]
    parts = {row[0]: (_number(row[-2]), _number(row[-1])) for row in rows}
    assert sum(part[0] for part in parts.values()) == _size(model.variables)
    assert sum(part[1] for part in parts.values()) == _size(model.trainable_variables)
    assert all(part[0] > 0 for part in parts.values())
    assert {"pixel_encoder", "semantic_head"} <= parts.keys()


@pytest.mark.parametrize("arguments", [{}, {"expand_nested": True}, {"line_length": 60}])
def test_lines_fit(model, arguments):
    lines = _summary(model, **arguments)
    assert max(map(len, lines)) <= arguments.get("line_length", 80)
    assert not any(word in "\n".join(lines) for word in ("unused", "multiple"))


def test_nested_layers_are_listed_below_their_part(model):
    lines = _summary(model, expand_nested=True)
    assert len(lines) > 3 * len(_summary(model))
    nested = [line for line in lines if line.startswith("  ")]
    assert any("conv" in line for line in nested)


def test_it_is_printed(model, capsys):
    model.summary()
    assert f"Total params: {_size(model.variables):,}" in capsys.readouterr().out
