"""Configs found by name: shipped ones, with bases by name, local files first, and files in remote folders."""

import pathlib
import uuid

import pytest

from deeplab2_kmax import files
from deeplab2_kmax.config import ConfigError, base_files, load_config
from deeplab2_kmax.config.named import find_config, shipped_folder, shipped_names, similar_names

NAME = "shapes/kmax_tiny"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The working folder of each test: an empty one, outside of the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def remote():
    """A remote folder that nothing else uses."""
    return f"ram://named/{uuid.uuid4().hex}"


@pytest.mark.parametrize(
    "spelling", [NAME, f"{NAME}.textproto", f"configs/{NAME}", f"configs/{NAME}.textproto", f"./configs/{NAME}"]
)
def test_a_shipped_config_is_found_by_every_spelling_of_its_name(spelling, configs):
    assert pathlib.Path(find_config(spelling)).samefile(configs / f"{NAME}.textproto")
    assert load_config(spelling).experiment_name == "shapes_kmax_tiny"


def test_the_names_are_those_of_all_shipped_configs(configs):
    assert shipped_folder().samefile(configs)
    assert {"coco/kmax_r50", "coco/ladder/6_kmax", NAME} | {"bases/coco_kmax"} <= set(shipped_names())
    assert list(shipped_names()) == sorted(shipped_names())
    # Bases are found nonetheless, as files of one's own build on them.
    assert pathlib.Path(find_config("bases/coco_kmax")).samefile(configs / "bases/coco_kmax.textproto")


@pytest.mark.parametrize("spelling", [NAME, f"configs/{NAME}.textproto"])
def test_a_local_file_wins_over_a_shipped_name(elsewhere, spelling, configs):
    own = elsewhere / spelling
    own.parent.mkdir(parents=True)
    own.write_text(f'base: "{configs / NAME}.textproto" experiment_name: "own"')
    assert find_config(spelling) == spelling
    assert load_config(spelling).experiment_name == "own"


def test_a_local_file_wins_also_where_its_ending_is_left_out(elsewhere):
    own = elsewhere / f"{NAME}.textproto"
    own.parent.mkdir(parents=True)
    own.write_text(f'base: "{shipped_folder() / NAME}.textproto" experiment_name: "own"')
    assert load_config(NAME).experiment_name == "own"


def test_paths_may_be_of_pathlib(elsewhere):
    assert load_config(pathlib.Path(NAME)).experiment_name == "shapes_kmax_tiny"
    assert load_config(shipped_folder() / f"{NAME}.textproto").experiment_name == "shapes_kmax_tiny"
    with pytest.raises(ConfigError, match="cannot read the config file '.*missing.textproto': no such file"):
        load_config(elsewhere / "missing.textproto")


def test_a_base_that_lies_elsewhere_is_named_as_it_could_be_reached(elsewhere):
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine/f.textproto").write_text('base: "../bases/coco_kmax.textproto"')
    with pytest.raises(ConfigError, match="did you mean bases/coco_kmax or "):
        load_config("mine/f.textproto")


def test_a_local_folder_does_not_hide_a_shipped_name(elsewhere):
    (elsewhere / NAME).mkdir(parents=True)
    assert load_config(NAME).experiment_name == "shapes_kmax_tiny"


@pytest.mark.parametrize("path", ["/coco/kmax_r50", "../coco/kmax_r50", "ram://coco/kmax_r50", "coco/no_such"])
def test_other_paths_are_no_names(path):
    assert find_config(path) == path
    with pytest.raises(ConfigError, match="cannot read the config file"):
        load_config(path)


@pytest.mark.parametrize("path", ["coco/kmax_r5O", "configs/coco/kmax_r5O.textproto"])
def test_similar_names_are_suggested(path):
    assert similar_names(path)[0] == "coco/kmax_r50" and len(similar_names(path)) <= 3
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert f"{path!r}: no such file; did you mean coco/kmax_r50" in str(error.value)


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(ConfigError) as error:
        load_config("qqqq")
    assert str(error.value).endswith("'qqqq': no such file")


@pytest.mark.parametrize("base", [NAME, f"configs/{NAME}.textproto"])
def test_a_file_anywhere_builds_on_a_shipped_config_by_name(elsewhere, base, configs):
    own = elsewhere / "deep" / "own.textproto"
    own.parent.mkdir()
    own.write_text(f'base: "{base}" experiment_name: "own"')
    config = load_config(str(own))
    assert config.experiment_name == "own" and list(config.train_dataset_options.crop_size) == [97, 97]
    assert [pathlib.Path(file).name for file in base_files(str(own))] == ["kmax_tiny.textproto"]


def test_a_base_beside_the_file_wins_over_a_shipped_name(elsewhere):
    (elsewhere / "shapes").mkdir()
    (elsewhere / NAME).write_text('base: "configs/shapes/kmax_tiny" train_dataset_options { batch_size: 77 }')
    (elsewhere / "own").write_text(f'base: "{NAME}"')
    assert load_config("own").train_dataset_options.batch_size == 77


def test_a_missing_base_is_named_where_one_would_expect_it(elsewhere):
    (elsewhere / "own").write_text('base: "bases/no_such"')
    with pytest.raises(ConfigError, match=r"'bases/no_such': no such file.*\n    it is a base: own -> bases/no_such"):
        load_config("own")


def test_a_remote_config_is_loaded_with_bases_beside_it(remote, elsewhere, configs):
    files.write_text(f"{remote}/bases/base.textproto", (configs / f"{NAME}.textproto").read_text())
    files.write_text(f"{remote}/own/mine.textproto", 'base: "../bases/base.textproto" experiment_name: "mine"')
    config = load_config(f"{remote}/own/mine.textproto")
    assert config.experiment_name == "mine" and list(config.train_dataset_options.crop_size) == [97, 97]
    assert base_files(f"{remote}/own/mine.textproto") == [f"{remote}/bases/base.textproto"]
    # A remote path taken for a local one would make a folder `ram:` here.
    assert not list(elsewhere.iterdir())


def test_a_remote_config_builds_on_a_shipped_one_by_name(remote):
    files.write_text(f"{remote}/mine.textproto", f'base: "{NAME}" experiment_name: "mine"')
    assert load_config(f"{remote}/mine.textproto").experiment_name == "mine"


def test_a_local_config_with_a_remote_base(remote, elsewhere, configs):
    files.write_text(f"{remote}/base.textproto", (configs / f"{NAME}.textproto").read_text())
    (elsewhere / "mine.textproto").write_text(f'base: "{remote}/base.textproto" experiment_name: "mine"')
    assert load_config("mine.textproto").experiment_name == "mine"


def test_a_remote_config_that_is_missing_is_named(remote):
    with pytest.raises(ConfigError, match=f"cannot read the config file '{remote}/none.textproto': no such file"):
        load_config(f"{remote}/none.textproto")
