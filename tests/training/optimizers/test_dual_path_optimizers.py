"""On MaX-DeepLab's skeleton what is pretrained has the backbone's optimizer and all else the other, as in DeepLab2."""

import orbit
import tensorflow as tf

from deeplab2_kmax.model import build_model
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints
from deeplab2_kmax.training.optimizers import SolverSettings, build_optimizers

MULTIPLIER = "trainer_options.solver_options.backbone_learning_rate_multiplier=0.1"


def test_slots_in_a_training_checkpoint(tiny_max_config, tmp_path):
    config = tiny_max_config(MULTIPLIER)
    model = build_model(config)
    settings = SolverSettings.from_options(config.trainer_options.solver_options)
    optimizers = build_optimizers(settings, model.trainable_variables, model.backbone_variables)
    step = orbit.utils.create_global_step()
    step.assign(1)
    checkpoints = RunCheckpoints(
        model, step, str(tmp_path), initialize=lambda: "", optimizers=optimizers.checkpoint_items
    )
    path = checkpoints.save(check_interval=False)
    slots = {}
    for key, _ in tf.train.list_variables(path):
        variable, _, slot = key.partition("/.OPTIMIZER_SLOT/")
        if slot.endswith("m/.ATTRIBUTES/VARIABLE_VALUE"):
            slots[variable] = slot.split("/")[0]
    assert len(slots) == len(model.trainable_variables)
    assert {slots.pop(name) for name in ("encoder/memory_feature", "semantic_last_layer/bias")} == {"optimizer"}
    for variable, optimizer in slots.items():
        extra = any(word in variable for word in ("transformer", "extra"))
        expected = "backbone_optimizer" if variable.startswith("encoder/") and not extra else "optimizer"
        assert optimizer == expected, variable
    assert slots["encoder/_stage5/_block1/_conv1_bn_act/_conv/kernel"] == "backbone_optimizer"
