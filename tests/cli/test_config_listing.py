"""`deeplab2-kmax config`."""

import pytest

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.cli.config_listing import config_listing, difference_listing
from deeplab2_kmax.config import load_config


@pytest.fixture
def coco(configs):
    return str(configs / "coco" / "kmax_r50.textproto")


def test_a_listing_can_be_loaded_and_says_what_went_into_it(coco, tmp_path):
    override = "train_dataset_options.batch_size=3"
    listing = config_listing(coco, [override])
    head = [line for line in listing.splitlines() if line.startswith("#")]
    assert head[0] == f"# {coco}"
    assert any(line.endswith("bases/coco.textproto") for line in head)
    assert f"#   {override}" in head
    assert any("stage_blocks = (3, 4, 6, 3)" in line for line in head)
    assert max(map(len, listing.splitlines())) <= 120
    (tmp_path / "listing").write_text(listing)
    assert load_config(str(tmp_path / "listing")) == load_config(coco, [override])


def test_a_model_that_cannot_be_built_is_listed_too(tmp_path):
    (tmp_path / "other").write_text('model_options { backbone { name: "resnet50" } panoptic_deeplab { } }')
    listing = config_listing(str(tmp_path / "other"))
    assert "# cannot be built: model_options.panoptic_deeplab: Panoptic-DeepLab" in listing


def test_differences_are_listed_by_message(coco, configs):
    cityscapes = str(configs / "cityscapes" / "kmax_r50.textproto")
    lines = difference_listing(cityscapes, coco, ["experiment_name=mine"]).splitlines()
    assert lines[0] == f"{cityscapes} -> {coco}"
    assert lines[1] == 'experiment_name  "cityscapes_kmax_r50" -> "mine"'
    solver = lines[lines.index("trainer_options.solver_options") + 1 :][:2]
    assert solver == ["    base_learning_rate        0.0003 -> 0.0005", "    training_number_of_steps  60000 -> 150000"]


def test_equal_configs_say_so(coco):
    assert "say the same" in difference_listing(coco, coco)


def test_a_shipped_config_is_listed_by_its_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        command.main(["config", "coco/kmax_r50", "--override", "experiment_name=mine"])
    assert end.value.code == 0
    listing = capsys.readouterr().out
    assert listing.splitlines()[0].endswith("configs/coco/kmax_r50.textproto") and 'experiment_name: "mine"' in listing


@pytest.mark.parametrize("arguments", [["{}"], ["--config_file", "{}"], ["{}", "--diff", "{}"]])
def test_the_command_takes_the_file_by_position_or_by_flag(arguments, coco, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["config", *(argument.format(coco) for argument in arguments)])
    assert end.value.code == 0
    assert coco in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("arguments", [[], ["a", "--config_file", "b"]])
def test_the_command_wants_one_file(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["config", *arguments])
    assert end.value.code == "error: config: expected one config, either as FILE or by --config_file FILE"


def test_a_reader_that_stops_early_is_no_error(coco, tmp_path):
    import subprocess
    import sys

    code = "import sys; from deeplab2_kmax.cli.main import main; sys.stdin.read(); main()"
    process = subprocess.Popen([sys.executable, "-c", code, "config", coco], stdin=-1, stdout=-1, stderr=-1, text=True)
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
