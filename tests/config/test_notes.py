"""What a user is told about a config that was read."""

import pytest

from deeplab2_kmax.config import load_with_notes
from deeplab2_kmax.config.named import shipped_names
from deeplab2_kmax.config.placeholders import placeholders


def told(name, *overrides):
    _, notes = load_with_notes(name, overrides)
    return [note.text for note in notes if note.told]


@pytest.mark.parametrize("name", ["coco/kmax_r50", "cityscapes/cmt_axial_r50", "coco/max_l_1025_100k"])
def test_shipped_configs_leave_nothing_to_tell(name):
    assert told(name) == []
    # What names stand for is listed by `deeplab2-kmax config`.
    assert load_with_notes(name)[1]


def test_what_is_guessed_is_told(tmp_path):
    path = tmp_path / "own.textproto"
    path.write_text('base: "coco/kmax_r50" ')
    config, _ = load_with_notes(path)
    max_deeplab = config.model_options.max_deeplab
    max_deeplab.ClearField("num_mask_slots")
    max_deeplab.ClearField("high_resolution_output_stride")
    from deeplab2_kmax.config import explicit_fields

    (note,) = explicit_fields(config)
    assert note.told and note.text.startswith("inferred from the data set name 'coco_panoptic', as DeepLab2 does: num_")


def test_no_shipped_config_has_placeholders():
    assert len(shipped_names()) > 50
    assert placeholders(load_with_notes("coco/kmax_r50", ["experiment_name=a_${B}_${C}"])[0]) == {
        "experiment_name": "${B}, ${C}"
    }
    for name in ("coco/kmax_r50", "cityscapes/kmax_r50", "ade20k/kmax_r50", "shapes/kmax_tiny"):
        assert placeholders(load_with_notes(name)[0]) == {}
