"""Configs that build on others."""

import pytest

from deeplab2_kmax.config import ConfigError, config_to_text, load_config
from deeplab2_kmax.config.bases import read_with_bases


@pytest.fixture
def files(tmp_path):
    """Writes {path: text} below a folder; returns that folder."""

    def write(texts):
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def read(folder, name):
    return read_with_bases(str(folder / name))


def test_own_values_go_on_top_of_the_base(files):
    folder = files(
        {
            "base": 'experiment_name: "base" trainer_options { steps_per_loop: 7 solver_options { warmup_steps: 5 } }',
            "own": 'base: "base" experiment_name: "own" trainer_options { solver_options { optimizer: "sgd" } }',
        }
    )
    config = read(folder, "own")
    assert config.experiment_name == "own"
    assert config.trainer_options.steps_per_loop == 7
    assert config.trainer_options.solver_options.warmup_steps == 5
    assert config.trainer_options.solver_options.optimizer == "sgd"


def test_a_value_equal_to_the_proto_default_replaces_too(files):
    folder = files(
        {
            "base": "trainer_options { solver_options { use_sync_batchnorm: false warmup_steps: 5 } }",
            "own": 'base: "base" trainer_options { solver_options { use_sync_batchnorm: true warmup_steps: 0 } }',
        }
    )
    solver = read(folder, "own").trainer_options.solver_options
    assert solver.use_sync_batchnorm and solver.HasField("warmup_steps") and solver.warmup_steps == 0


def test_lists_are_replaced_not_extended(files):
    folder = files(
        {
            "base": """
                train_dataset_options { crop_size: [65, 97] }
                model_options { max_deeplab {
                  auxiliary_low_level { feature_key: "res3" } auxiliary_low_level { feature_key: "res2" } } }
            """,
            "sizes": 'base: "base" train_dataset_options { crop_size: 129 crop_size: 161 }',
            "skips": 'base: "base" model_options { max_deeplab { auxiliary_low_level { feature_key: "res4" } } }',
        }
    )
    sizes, skips = read(folder, "sizes"), read(folder, "skips")
    assert list(sizes.train_dataset_options.crop_size) == [129, 161]
    assert list(skips.train_dataset_options.crop_size) == [65, 97]
    assert [skip.feature_key for skip in sizes.model_options.max_deeplab.auxiliary_low_level] == ["res3", "res2"]
    assert [skip.feature_key for skip in skips.model_options.max_deeplab.auxiliary_low_level] == ["res4"]


def test_an_empty_sub_message_is_kept(files):
    folder = files(
        {"base": "model_options { panoptic_deeplab { } }", "own": 'base: "base" model_options { max_deeplab { } }'}
    )
    assert read(folder, "own").model_options.WhichOneof("meta_architecture") == "max_deeplab"


def test_bases_of_bases_are_found_beside_the_file_that_names_them(files, monkeypatch):
    folder = files(
        {
            "configs/coco/own": 'base: "../bases/coco"',
            "configs/bases/coco": 'base: "deeper/all" train_dataset_options { batch_size: 64 }',
            "configs/bases/deeper/all": "train_dataset_options { batch_size: 1 max_thing_id: 3 }",
        }
    )
    monkeypatch.chdir(folder / "configs")
    options = read_with_bases("coco/own").train_dataset_options
    assert (options.batch_size, options.max_thing_id) == (64, 3)
    assert read(folder, "configs/coco/own").train_dataset_options == options


def test_later_bases_win_and_a_shared_base_takes_nothing_back(files):
    folder = files(
        {
            "own": 'base: "left" base: "right"',
            "left": 'base: "shared" experiment_name: "left" train_dataset_options { batch_size: 2 }',
            "right": 'base: "shared" experiment_name: "right"',
            "shared": 'experiment_name: "shared" train_dataset_options { batch_size: 1 max_thing_id: 3 }',
        }
    )
    config = read(folder, "own")
    assert config.experiment_name == "right"
    assert (config.train_dataset_options.batch_size, config.train_dataset_options.max_thing_id) == (2, 3)


def test_what_is_loaded_stands_alone(files, configs):
    tiny = configs / "shapes" / "kmax_tiny.textproto"
    folder = files({"experiments/own": f'base: "{tiny}" experiment_name: "own"'})
    config = load_config(str(folder / "experiments" / "own"))
    assert not config.base
    files({"elsewhere": config_to_text(config)})
    assert load_config(str(folder / "elsewhere")) == config
    config.experiment_name = load_config(str(tiny)).experiment_name
    assert config == load_config(str(tiny))


def test_a_missing_base_is_named_with_the_files_that_led_to_it(files):
    folder = files({"own": 'base: "bases/one"', "bases/one": 'base: "two"'})
    with pytest.raises(ConfigError) as error:
        read(folder, "own")
    chain = " -> ".join(str(folder / name) for name in ("own", "bases/one", "bases/two"))
    assert "cannot read" in str(error.value) and chain in str(error.value)


def test_a_mistake_in_a_base_is_named_with_its_line(files):
    folder = files({"own": 'base: "one"', "one": "\nexperiment_nam: 'x'"})
    with pytest.raises(ConfigError) as error:
        read(folder, "own")
    assert f"{folder / 'one'}:2" in str(error.value) and "experiment_nam" in str(error.value)
    assert f"{folder / 'own'} -> {folder / 'one'}" in str(error.value)


@pytest.mark.parametrize("texts", [{"own": 'base: "own"'}, {"own": 'base: "one"', "one": 'base: "./own"'}])
def test_a_cycle_is_named(files, texts):
    folder = files(texts)
    with pytest.raises(ConfigError) as error:
        read(folder, "own")
    assert "lead back to where they began" in str(error.value)
    assert str(error.value).endswith(" -> ".join(str(folder / name) for name in (*texts, "own")))


def test_a_chain_without_end_is_refused_in_one_line(files):
    folder = files({f"own{n}": f'base: "own{n + 1}"' for n in range(3000)})
    with pytest.raises(ConfigError, match="own0: expected at most 100 bases one behind the other") as error:
        read(folder, "own0")
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("base", [r"a\000b", r"/tmp/\000.textproto", "a" * 5000])
def test_a_base_that_no_file_can_be_called(files, base):
    folder = files({"own": f'base: "{base}"'})
    with pytest.raises(ConfigError, match="own: base: expected the path or name of a config|File name too long"):
        read(folder, "own")


@pytest.mark.parametrize("text", ["model_options {" * 3000, "foo <" * 3000, "foo: [" * 3000])
def test_nesting_beyond_all_measure_is_shown_by_its_start(files, text):
    folder = files({"own": text})
    with pytest.raises(ConfigError, match=f"^{folder}/own:1: ") as error:
        read(folder, "own")
    assert len(str(error.value)) < 1000


def test_an_override_cannot_name_a_base(configs):
    with pytest.raises(ConfigError, match="not by an override"):
        load_config(str(configs / "shapes" / "kmax_tiny.textproto"), ["base=other.textproto"])
