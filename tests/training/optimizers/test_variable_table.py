"""Which optimizer a variable gets and whether it decays: as in DeepLab2, as printed, and as it happens."""

import collections
import hashlib
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.training.optimizers import Schedule, SolverSettings, build_optimizers
from deeplab2_kmax.training.optimizers.variable_table import variable_table

CONFIGS = {
    "kmax_r50_coco": "coco/kmax_r50",
    "kmax_convnext_tiny_coco": "coco/kmax_convnext_tiny",
    "max_s_coco": "coco/max_s_641_100k",
}


def solver(optimizer="adamw", weight_decay=0.05):
    return SolverSettings(optimizer, Schedule(0.1, total_steps=10**9), weight_decay, backbone_multiplier=0.1)


@pytest.mark.parametrize(
    "case", [pytest.param("kmax_r50_coco", marks=pytest.mark.slow), "kmax_convnext_tiny_coco", "max_s_coco"]
)
def test_groups_equal_deeplab2s(case, configs, golden):
    model = build_model(load_config(str(configs / f"{CONFIGS[case]}.textproto")))
    lines = sorted(
        f"{row.key} {row.group.optimizer} {'decays' if row.group.decays else 'stays'}"
        for row in variable_table(model, solver())
        if row.group
    )
    expected = json.loads((golden / "variable_groups.json").read_text())[case]
    assert collections.Counter(line.split(" ", 1)[1] for line in lines) == expected["counts"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == expected["sha256"]


@pytest.fixture(scope="module")
def tiny_model(tiny_config):
    return build_model(tiny_config)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "radam", "lamb"])
def test_the_optimizers_do_what_the_table_says(optimizer, tiny_model):
    # Without gradient only decay moves a variable, by its group's rate (and, with lamb, by the layer's norm).
    settings = solver(optimizer)
    rows = [row for row in variable_table(tiny_model, settings) if row.group]
    variables = tiny_model.trainable_variables
    optimizers = build_optimizers(settings, variables, tiny_model.backbone_variables)
    before = {variable.ref(): variable.numpy() for variable in variables}
    for variable in variables:
        variable.assign(tf.ones_like(variable))
    optimizers.apply([(tf.zeros_like(variable), variable) for variable in variables])
    by_name = collections.defaultdict(set)
    for row in rows:
        by_name[row.name].add((row.group.rate_multiplier, row.group.decays))
    assert any(row.group.decays for row in rows) == (optimizer in ("adamw", "radam", "lamb"))
    for variable in variables:
        ((multiplier, decays),) = by_name[variable.name]
        share = 1.0 if optimizer == "lamb" else 0.05
        expected = 1 - 0.1 * multiplier * share if decays else 1.0
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, err_msg=variable.name)
        variable.assign(before[variable.ref()])


def test_the_command_prints_them_with_totals_and_exits(configs, tiny_overrides, tiny_model, tmp_path, capsys):
    # The config's rate of 0.002 is for its batches of 8.
    changes = ["trainer_options.solver_options.learning_rate_reference_batch_size=16", *tiny_overrides]
    flags = [f"--override={override}" for override in changes]
    config = str(configs / "shapes" / "kmax_tiny.textproto")
    with pytest.raises(SystemExit) as ended:
        command.main(["train", "--config_file", config, "--print_variables", "--model_dir", str(tmp_path), *flags])
    assert ended.value.code == 0 and not list(tmp_path.iterdir())
    out = capsys.readouterr().out
    (kernel,) = re.findall(r"^.* encoder/_stem/_conv/kernel .*$", out, re.M)
    assert kernel.split()[:4] == ["backbone_optimizer", "x1", "yes", "7x7x3x8"] and kernel.endswith("/stem/kernel:0")
    (mean,) = re.findall(r"^.* encoder/_stem/_batch_norm/moving_mean .*$", out, re.M)
    assert mean.startswith("not trained")
    assert "\nadamw, base learning rate 0.001, weight decay 0.01\n" in out
    assert re.search(rf"^all +{len(tiny_model.variables)} variables +{tiny_model.count_params():,} weights$", out, re.M)
