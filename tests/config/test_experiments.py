"""The experiments in configs/: each of DeepLab2's kMaX and MaX ones is there with the same values."""

import gzip
import json
import pathlib
import re

import pytest
from google.protobuf import json_format

from deeplab2_kmax.config import config_to_text, differences, load_config
from deeplab2_kmax.config.bases import read_with_bases
from deeplab2_kmax.config.parsing import parse_config
from deeplab2_kmax.protos import config_pb2

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEEPLAB2 = json.loads(gzip.decompress((ROOT / "tests" / "golden" / "deeplab2_configs.json.gz").read_bytes()))
OWN = {
    path.relative_to(ROOT / "configs").with_suffix("").as_posix(): path
    for path in (ROOT / "configs").rglob("*.textproto")
}
EXPERIMENTS = sorted(name for name in OWN if not name.startswith("bases/"))
# A user's own, or where files lie.
PLACES = {"experiment_name", "initial_checkpoint", "pretrained_weights", "file_pattern"}


def own_name(deeplab2_name):
    """coco/kmax_deeplab/kmax_meta_r50_os32 -> coco/kmax_r50; max_deeplab_s_os16_res641_100k -> max_s_641_100k."""
    data, _, name = deeplab2_name.split("/")
    name = re.sub("kmax_meta_", "kmax_", re.sub("max_deeplab_", "max_", name))
    return f"{data}/{re.sub('_res', '_', re.sub('_os[0-9]+', '', name))}"


SHIPPED = {own_name(name): values for name, values in DEEPLAB2.items() if not name.startswith("example/")}


@pytest.fixture
def loaded(tmp_path):
    """Loads the config that has the values of a dictionary."""

    def load(values):
        config = json_format.ParseDict(values, config_pb2.ExperimentOptions())
        path = tmp_path / "experiment.textproto"
        path.write_text(config_to_text(config))
        return load_config(str(path))

    return load


def test_all_of_deeplab2s_experiments_are_there():
    assert len(DEEPLAB2) == 27 and len(SHIPPED) == 25
    assert set(SHIPPED) <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_values_are_deeplab2s(name, loaded):
    config = load_config(str(OWN[name]))
    found = {path for path in differences(config, loaded(SHIPPED[name])) if path.rsplit(".", 1)[-1] not in PLACES}
    assert not found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_survive_printing_and_are_named_after_their_file(name, tmp_path):
    config = load_config(str(OWN[name]))
    (tmp_path / "printed").write_text(config_to_text(config))
    assert load_config(str(tmp_path / "printed")) == config
    assert config.experiment_name == name.replace("/", "_")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_headers_give_the_command(name):
    header = [line for line in OWN[name].read_text().splitlines() if line.startswith("#")]
    assert any(f"--config_file=configs/{name}.textproto" in line for line in header)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_nothing_is_left_to_the_name_of_the_data_set(name):
    options = read_with_bases(str(OWN[name])).model_options
    needed = ["num_mask_slots", "high_resolution_output_stride", "use_auxiliary_semantic_decoder"]
    if options.backbone.name.startswith("kmax_"):
        needed.append("transformer_decoder_drop_path_keep_prob")
    assert all(map(options.max_deeplab.HasField, needed))


@pytest.mark.parametrize(
    "step, before, changed",
    [
        ("1_max", "0_spatial_softmax", {"pixel_update"}),
        ("2_clustering_update", "1_max", {"update_rule"}),
        ("3_residual_assignment", "2_clustering_update", {"residual_assignment"}),
        ("4_pixel_update", "3_residual_assignment", {"pixel_update"}),
        ("5_cmt", "4_pixel_update", {"location_sensitive"}),
        ("6_kmax", "5_cmt", {"update_rule", "pixel_update", "residual_assignment", "location_sensitive"}),
    ],
)
def test_a_step_of_the_ladder_changes_the_update_rule_alone(step, before, changed):
    found = differences(*(load_config(str(OWN[f"coco/ladder/{name}"])) for name in (step, before)))
    # Reference masks come and go with their loss.
    found = {path for path in found if not path.startswith("trainer_options.loss_options.mask_approximation_loss.")}
    assert found == {"experiment_name", *(f"model_options.max_deeplab.transformer_decoder.{name}" for name in changed)}


def test_the_ladder_ends_at_kmax():
    ladder, kmax = (load_config(str(OWN[name])) for name in ("coco/ladder/6_kmax", "coco/kmax_r50"))
    assert set(differences(ladder, kmax)) == {"experiment_name"}


def test_every_base_is_used(configs):
    """By an experiment, or by the one that docs/your_own_dataset.md has its readers write."""
    named = {(path.parent / base).resolve() for path in OWN.values() for base in parse_config(str(path)).base}
    page = (configs.parent / "docs" / "your_own_dataset.md").read_text()
    named |= {(configs / "bases" / name).resolve() for name in re.findall(r'^base: ".*/(\w+\.textproto)"', page, re.M)}
    assert {OWN[name].resolve() for name in OWN if name.startswith("bases/")} <= named
