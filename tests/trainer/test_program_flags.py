"""Help, spellings of flags, and mistakes in them: the same for every program whose flags are DeepLab2's."""

import os
import pathlib
import subprocess
import sys

import pytest

from deeplab2_kmax.cli.main import _CONVERTERS

_ROOT = pathlib.Path(__file__).parents[2]
TRAIN, EXPORT, EVALUATE = ["trainer/train.py"], ["trainer/export_model.py"], ["evaluation/evaluate.py"]
# Program -> some of its flags.
FLAGS = {
    "trainer/train.py": ["config_file", "mode", "model_dir", "num_gpus", "master", "[no]print_variables", "override"],
    "trainer/export_model.py": ["experiment_option_path", "checkpoint_path", "output_path", "override"],
    "evaluation/evaluate.py": ["config_file", "checkpoint", "output_dir", "file_pattern", "num_gpus", "override"],
    "-m deeplab2_kmax.converters.coco": ["coco_root", "output_dir", "[no]treat_crowd_as_ignore"],
    "-m deeplab2_kmax.converters.cityscapes": ["cityscapes_root", "output_dir"],
    "-m deeplab2_kmax.converters.ade20k": ["ade20k_root", "output_dir"],
    "-m deeplab2_kmax.converters.coco_instances": ["output_dir", "stuff_png_folder", "overlaps"],
    "-m deeplab2_kmax.converters.coco_panoptic": ["output_dir"],
    "-m deeplab2_kmax.converters.cvat": ["output_dir", "annotations", "overlaps"],
    "-m deeplab2_kmax.converters.folder": ["output_dir"],
    "-m deeplab2_kmax.converters.label_studio": ["output_dir", "annotations", "image_key"],
    "-m deeplab2_kmax.converters.labelme": ["output_dir", "label_folder", "overlaps"],
    "-m deeplab2_kmax.converters.mapillary": ["output_dir", "mapillary_root", "release"],
    "-m deeplab2_kmax.converters.roboflow": ["output_dir", "[no]boxes"],
    "-m deeplab2_kmax.converters.shapes": ["output_dir"],
    "-m deeplab2_kmax.converters.supervisely": ["output_dir", "project_folder", "split_by"],
    "-m deeplab2_kmax.converters.voc": ["output_dir", "folder", "background_class"],
    "-m deeplab2_kmax.converters.yolo": ["output_dir", "data_yaml", "overlaps"],
}


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=300,
    )


# Runs modules with --help as `python -m` does and ends with status 1 if one of them fails. Each runs in a fork of one
# process that has loaded TensorFlow, since loading it takes each converter longer than everything else it does here.
RUN_MODULES = """
import os, runpy, sys
import deeplab2_kmax.converters.reading.panoptic_png  # loads TensorFlow

statuses = []
for module in sys.argv[2:]:
    if (child := os.fork()) == 0:
        os.dup2(os.open(os.path.join(sys.argv[1], module), os.O_WRONLY | os.O_CREAT), 1)
        sys.argv = [module, "--help"]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)  # At once: to unload TensorFlow takes a second.
    statuses.append(os.waitpid(child, 0)[1])
sys.exit(any(statuses))
"""
# The first converter runs by itself, like the programs; the others share a process.
MODULES = [program.split()[-1] for program in FLAGS if program.startswith("-m")][1:]


@pytest.mark.parametrize("program", [program for program in FLAGS if program.split()[-1] not in MODULES])
def test_help_lists_the_flags_and_ends_with_status_0(program):
    done = run(*program.split(), "--help")
    assert done.returncode == 0, done.stderr
    _require_help(done.stdout, program)


def test_help_of_the_other_converters(tmp_path):
    done = run("-c", RUN_MODULES, str(tmp_path), *MODULES)
    assert done.returncode == 0, done.stderr
    named = {program.rsplit(".", 1)[-1] for program in FLAGS if program.startswith("-m")}
    assert named == set(_CONVERTERS)
    for module in MODULES:
        _require_help((tmp_path / module).read_text(), f"-m {module}")


def _require_help(printed, program):
    assert printed.startswith(f"usage: python {program} --flag=value ...\n")
    for flag in FLAGS[program]:
        assert f"\n  --{flag} " in printed or f"\n  --{flag}\n" in printed, flag
    # Flags of libraries, such as absl's logging, are left to --helpfull.
    assert "verbosity" not in printed


@pytest.mark.parametrize("spelling", ["-help", "--helpshort", "-h", "-?"])
def test_every_spelling_of_help(spelling):
    done = run(*TRAIN, spelling)
    assert done.returncode == 0 and "--config_file VALUE" in done.stdout


def test_help_does_not_load_tensorflow():
    done = run("-X", "importtime", *EVALUATE, "--help")
    assert done.returncode == 0 and "absl.flags" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.split("|")[-1].strip().startswith("tensorflow")]


def test_the_full_help_of_absl_lists_the_flags_of_all_modules():
    done = run(*TRAIN, "--helpfull")
    assert done.returncode == 0
    assert "--config_file" in done.stdout and "--[no]alsologtostderr" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config_file=shapes/kmax_tiny", "--print_variables", "--num_gpus=x"],
        ["-config_file", "shapes/kmax_tiny", "-noprint_variables", "-num_gpus", "x"],
        ["--noprint_variables", "--config_file", "shapes/kmax_tiny", "--num_gpus", "x"],
    ],
)
def test_flags_are_spelled_as_in_deeplab2(arguments):
    # Were another flag not understood, the message would be about that one.
    assert run(*TRAIN, *arguments).stderr == "error: flag --num_gpus: expected a number, got 'x'\n"


def test_a_single_dash_and_a_negated_flag_have_their_effect():
    done = run(*TRAIN, "-config_file", "shapes/no_such", "--print_variables", "--noprint_variables")
    assert done.returncode == 1 and "cannot read the config file 'shapes/no_such'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TRAIN, "--confg_file=x"], "error: unknown flag --confg_file; did you mean '--config_file'?"),
        ([*EXPORT, "--output_pth=x"], "error: unknown flag --output_pth; did you mean '--output_path'?"),
        ([*EVALUATE, "--checkpoint=x"], "error: expected the flag --config_file; --help says what it is"),
        ([*EVALUATE, "--config_file=x"], "error: expected the flag --checkpoint; --help says what it is"),
        ([*EXPORT], "error: expected the flag --experiment_option_path; --help says what it is"),
        ([*TRAIN, "--config_file=x", "y"], "error: unexpected argument 'y'; flags look like --name=value, see --help"),
        ([*EVALUATE, "--config_file=x", "--checkpoint=y"], "error: cannot read the config file 'x': no such file"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message + "\n")
