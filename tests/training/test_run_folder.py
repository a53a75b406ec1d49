import pytest

from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.training import run_experiment
from deeplab2_kmax.training.run_folder import run_folder


@pytest.mark.parametrize("name, folder", [("kmax", "runs/kmax"), ("coco/kmax..2", "runs/coco/kmax..2"), ("", "runs/")])
def test_the_folder_of_a_run_lies_below_model_dir(name, folder):
    assert run_folder("runs", name) == folder


@pytest.mark.parametrize("name", ["..", "../other", "a/../../b", "/tmp/run", "gs://bucket/run"])
def test_names_that_lead_elsewhere_are_refused(name, tmp_path):
    config = load_config("shapes/kmax_tiny")
    config.experiment_name = name
    with pytest.raises(ConfigError, match="experiment_name: expected the name of a folder below --model_dir, got"):
        run_experiment(config, "train", str(tmp_path / "runs"))
    assert not list(tmp_path.iterdir())
