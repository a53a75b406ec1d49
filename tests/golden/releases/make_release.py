"""Trains a very small model with the package as it is now and keeps it, so that later versions can be held to it.

    python tests/golden/releases/make_release.py --commit=$(git rev-parse --short HEAD)

writes the folder tests/golden/releases/<version of the package>, which tests/test_releases.py then checks. To be run
once for each release, from the root of a checkout; takes about two minutes on a laptop. A folder that is there already
is left alone: what a release wrote never changes. What the other line of dependencies writes lies in a folder of its
own, from --output, and without export: TensorFlow does not promise that an older version reads it.

Only public names and commands are used (`dk.load_config`, `dk.build_model`, `dk.load_checkpoint`, `dk.Predictor`,
`deeplab2-kmax convert | train | export`), so that the script works for later versions too. What it writes:

    config.textproto   the experiment, complete, with bases merged in; paths start at the unpacked archive
    picture.png        a picture the model has not been trained on
    expected.npz       what the release computes for it, and of its next training step: the loss, and how far weights,
                       averages and the optimizer's slots go
    model.tar.xz       run/<experiment>/: the folder that training left, with a checkpoint
                       export/: the SavedModel of that checkpoint (not with --without_export)
                       records/: the training data
    README.md          which versions wrote all this
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from google.protobuf import text_format
from PIL import Image

import deeplab2_kmax as dk

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # tests/, where `helpers` is

from helpers.step_length import changes, length_of_step, loss_of_last_step  # noqa: E402

# The checkout whose package is asked; the script may lie in another one.
ROOT = Path(dk.__file__).resolve().parents[1]
SIZE = 65
# Very narrow, so that checkpoint and export stay small. A constant learning rate, so that the next step tells whether
# the optimizer's state was restored: without it Adam's first step goes several times as far.
OVERRIDES = (
    "experiment_name=release",
    f"train_dataset_options.crop_size={SIZE},{SIZE}",
    f"eval_dataset_options.crop_size={SIZE},{SIZE}",
    "train_dataset_options.file_pattern=records/train-*.tfrecord",
    "eval_dataset_options.file_pattern=records/val-*.tfrecord",
    "model_options.backbone.stem_channels=4",
    "model_options.backbone.stage_filters=2,4,4,4",
    "model_options.decoder.aspp_channels=4",
    "model_options.decoder.decoder_channels=4",
    "model_options.max_deeplab.auxiliary_semantic_head.head_channels=4",
    "model_options.backbone.stage_blocks=1,1,1,1",
    "model_options.max_deeplab.high_resolution_output_stride=4",
    "model_options.max_deeplab.pixel_decoder.filters=8,8,4,4",
    "model_options.max_deeplab.pixel_decoder.num_blocks=1,1,1,1",
    "model_options.max_deeplab.pixel_decoder.block_type=axial,axial,bottleneck,bottleneck",
    "model_options.max_deeplab.transformer_decoder.num_blocks=1,1,1",
    "model_options.max_deeplab.transformer_decoder.center_channels=16",
    "model_options.max_deeplab.transformer_decoder.bottleneck_channels=16",
    "model_options.max_deeplab.transformer_decoder.key_channels=8",
    "model_options.max_deeplab.transformer_decoder.value_channels=16",
    "model_options.max_deeplab.transformer_decoder.feed_forward_channels=16",
    "model_options.max_deeplab.pixel_space_head.head_channels=8",
    "model_options.max_deeplab.pixel_space_head.output_channels=8",
    "trainer_options.seed=1",
    "trainer_options.num_checkpoints_to_keep=1",
    "trainer_options.solver_options.base_learning_rate=4e-3",
    "trainer_options.solver_options.learning_policy=poly",
    "trainer_options.solver_options.poly_learning_power=0",
    "trainer_options.solver_options.warmup_steps=20",
    "trainer_options.solver_options.batchnorm_momentum=0.9",
    # A model that has learnt so little is not sure of much.
    "evaluator_options.pixel_confidence_threshold=0.1",
    "evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_thing=0.1",
    "evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_stuff=0.1",
    "evaluator_options.maskwise_postprocessing.overlapping_threshold=0.2",
)
README = """# Version {version}

Written by deeplab2_kmax {version} (commit {commit}) with TensorFlow {tensorflow}, numpy {numpy} and Python {python}:

    {command}

../make_release.py describes the files; ../../../test_releases.py holds later versions to them. Never write them anew:
they stand for the checkpoints and exports that users of this version have.

The model has {parameters:,} weights and was trained for {steps} steps on {images} pictures of the `shapes` data. In the
picture it finds {segments} segments.
"""


def run_command(command: list[str], *arguments: str, folder: Path) -> str:
    """Runs `deeplab2-kmax` in `folder`, which `command` stands for, and returns what it prints.

    Its end with an error ends this program.
    """
    # The same package as here, whatever is installed.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    print(*command, *arguments, flush=True)
    call = [*command, *arguments]
    done = subprocess.run(call, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    return done.stdout


def make(options: argparse.Namespace, output: Path) -> None:
    """Makes the folder `output`."""
    steps, images = options.steps, options.images
    config = dk.load_config(options.config_file, [*OVERRIDES, *options.override, *lengths(steps)])
    with tempfile.TemporaryDirectory() as name:
        work, result = Path(name) / "work", Path(name) / "result"
        work.mkdir()
        result.mkdir()
        call = functools.partial(run_command, shlex.split(options.command), folder=work)
        (result / "config.textproto").write_text(
            text_format.MessageToString(config, use_short_repeated_primitives=True)
        )
        flags = [f"--num_train={images}", "--num_val=2", f"--size={SIZE}", "--num_shards=1", "--output_dir=records"]
        call("convert", "shapes", *flags)
        Path.rename(work / "records" / "example.png", result / "picture.png")
        train = ["train", f"--config_file={result / 'config.textproto'}"]
        call(*train, "--model_dir=run")
        run = work / "run" / "release"
        checkpoint = str(run / f"ckpt-{steps}")
        if not options.without_export:
            call("export", train[1], f"--checkpoint={checkpoint}", "--output=export")
        shutil.copytree(work / "run", work / "longer")
        overrides = [f"--override={each}" for each in lengths(steps + 1)]
        printed = call(*train, "--model_dir=longer", *overrides)
        following = str(work / "longer" / "release" / f"ckpt-{steps + 1}")

        picture = np.asarray(Image.open(result / "picture.png").convert("RGB"))
        model = dk.build_model(config)
        dk.load_checkpoint(model, checkpoint)
        outputs = model(picture[np.newaxis].astype(np.float32), training=False)
        prediction = dk.Predictor.from_checkpoint(config, checkpoint)(picture)
        np.savez_compressed(
            result / "expected.npz",
            panoptic_map=prediction.panoptic_map,
            step=steps,
            length_of_next_step=length_of_step(checkpoint, following),
            loss_of_next_step=loss_of_last_step(printed),
            **{f"change/{kind}": change for kind, change in changes(checkpoint, following).items()},
            **{f"output/{key}": np.asarray(value) for key, value in outputs.items()},
        )
        for left_over in (work / "run").rglob("*"):
            if left_over.name.startswith((".", "events.")):
                left_over.unlink()
        with tarfile.open(result / "model.tar.xz", "w:xz", preset=9) as archive:
            for part in ("run", "export", "records"):
                if (work / part).exists():
                    archive.add(work / part, part, filter=anonymous)
        text = README.format(
            version=dk.__version__,
            commit=options.commit,
            tensorflow=importlib.metadata.version("tensorflow"),
            numpy=np.__version__,
            python=platform.python_version(),
            command=shlex.join(["python", "tests/golden/releases/make_release.py", *sys.argv[1:]]),
            parameters=model.count_params(),
            steps=steps,
            images=images,
            segments=len(prediction.segments),
        )
        (result / "README.md").write_text(text)
        shutil.copytree(result, output)


def lengths(steps: int) -> tuple[str, ...]:
    """Overrides that make training end with a checkpoint at this step."""
    return (
        f"trainer_options.solver_options.training_number_of_steps={steps}",
        f"trainer_options.save_checkpoints_steps={steps}",
        f"trainer_options.save_summaries_steps={steps}",
    )


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same file without what only says who wrote it, and when."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--commit", required=True, help="the commit that is checked out, for the README")
    parser.add_argument("--config_file", default=str(ROOT / "configs/shapes/kmax_tiny.textproto"))
    parser.add_argument("--steps", type=int, default=300, help="training steps before the checkpoint (default: 300)")
    parser.add_argument("--images", type=int, default=16, help="training pictures (default: 16)")
    script = Path(sys.executable).with_name("deeplab2-kmax")
    parser.add_argument(
        "--command", default=str(script), help="how to call deeplab2-kmax (default: the one beside this Python)"
    )
    parser.add_argument("--override", action="append", default=[], help="a further override of the config; repeatable")
    parser.add_argument("--without_export", action="store_true", help="leave the export out")
    parser.add_argument("--output", type=Path, help="folder to make (default: the version, beside this script)")
    options = parser.parse_args()
    output = options.output or HERE / dk.__version__
    if output.exists():
        sys.exit(f"error: {output} is there already, and a release never changes; choose another --output")
    make(options, output)
    print(f"written: {output}")


if __name__ == "__main__":
    main()
