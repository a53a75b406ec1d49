"""Short runs of the commands, to be stopped or killed in a phase that they announce; see `announcing_command.py`."""

import contextlib
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from PIL import Image

from deeplab2_kmax.checkpoint_conversion import as_in_pytorch
from deeplab2_kmax.checkpoint_conversion.torch_tensors import from_torch, torch_name
from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from helpers.survival_runs import CONFIG, overrides, write_records

_ROOT = pathlib.Path(__file__).parents[2]
_TRAINING, _WRITING = "deeplab2_kmax.training", "deeplab2_kmax.converters.writing"
# Name -> (command, module, function): the phase of the command that begins with a call of the function.
PHASES = {
    "training: building": ("train", f"{_TRAINING}.run.run", "build_model"),
    "training: tracing": ("train", f"{_TRAINING}.step.step", "TrainStep.forward_backward"),
    "training: a step": ("train", f"{_TRAINING}.reporting.progress", "Progress.on_step"),
    "training: a checkpoint": ("train", f"{_TRAINING}.checkpoints.checkpointing", "RunCheckpoints._write"),
    "evaluation: building": ("eval", f"{_TRAINING}.run.run", "build_model"),
    "evaluation: tracing": ("eval", "deeplab2_kmax.evaluation.evaluator", "Evaluator._replica_step"),
    "evaluation: counting": ("eval", "deeplab2_kmax.evaluation.evaluator", "Evaluator.eval_reduce"),
    "export: building": ("export", "deeplab2_kmax.serving.inference", "InferenceModel.from_checkpoint"),
    "export: tracing": ("export", "deeplab2_kmax.serving.exporting", "_Servable.signatures"),
    "export: writing": ("export", "tensorflow", "saved_model.save"),
    "conversion: a shard": ("convert", f"{_WRITING}.shard_writer", "_write"),
    "conversion: by two processes": ("convert by two", f"{_WRITING}.sharded_output", "_show_progress"),
    "conversion: publishing": ("convert", f"{_WRITING}.sharded_output", "ShardedOutput._publish"),
    "checkpoint conversion: building": (
        "convert-checkpoint",
        "deeplab2_kmax.checkpoint_conversion.conversion",
        "build_model",
    ),
    "checkpoint conversion: writing": (
        "convert-checkpoint",
        "deeplab2_kmax.checkpoint_conversion.conversion",
        "save_checkpoint",
    ),
    "prediction: building": ("predict", "deeplab2_kmax.serving", "Predictor.from_checkpoint"),
    "prediction: a picture": ("predict", "deeplab2_kmax.cli.predict", "predict_file"),
}


class Commands:
    """What the commands need, made in a folder; and their command lines.

    Args:
        folder: for records, a checkpoint, its weights as PyTorch's, and pictures.
        tiny: overrides that make the model small.
        steps: of training; a checkpoint every fifth.
        scenes: to convert.
        pictures: to predict.
    """

    def __init__(self, folder, tiny, steps=600, scenes=3000, pictures=100):
        self._fields = overrides(write_records(folder, val=4), tiny, steps, interval=5)
        self._scenes = scenes
        config = load_config(str(CONFIG), self._fields)
        self._checkpoint = save_checkpoint(build_model(config), str(folder / "weights" / "ckpt-0"))
        self._port = folder / "port.pkl"
        with self._port.open("wb") as file:
            pickle.dump({"model": _as_of_the_port(config), "__author__": "third_party"}, file)
        pixels = np.random.RandomState(0).randint(0, 256, (pictures, 52, 83, 3)).astype(np.uint8)
        self._pictures = [folder / f"{number}.png" for number in range(pictures)]
        for path, picture in zip(self._pictures, pixels):
            Image.fromarray(picture).save(path)

    def line(self, command, folder):
        """The command line of a command that writes below `folder`."""
        config = [f"--config_file={CONFIG}", *(f"--override={field}" for field in self._fields)]
        checkpoint = f"--checkpoint={self._checkpoint}"
        shapes = ["convert", "shapes", f"--output_dir={folder}/records", "--num_val=100", "--num_shards=6"]
        evaluator = "--override=evaluator_options."
        return {
            "train": ["train", *config, f"--model_dir={folder}"],
            "eval": [
                *("eval", *config, f"--model_dir={folder}"),
                f"--override=model_options.initial_checkpoint={self._checkpoint}",
                f"{evaluator}save_predictions=true",
                f"{evaluator}save_raw_predictions=true",
            ],
            "export": ["export", *config, checkpoint, "-o", f"{folder}/export"],
            "convert": [*shapes, f"--num_train={self._scenes}", "--num_processes=1"],
            "convert by two": [*shapes, f"--num_train={2 * self._scenes}", "--num_processes=2"],
            "convert-checkpoint": ["convert-checkpoint", str(self._port), *config, "-o", f"{folder}/converted/ckpt"],
            "predict": ["predict", *config, checkpoint, "-o", f"{folder}/predicted", *map(str, self._pictures)],
        }[command]


def _as_of_the_port(config):
    """{name: array} of a state dict of the PyTorch port, for a model that it does not have: a very small one."""
    config = as_in_pytorch(config)
    semantic_decoder = config.model_options.max_deeplab.use_auxiliary_semantic_decoder
    random, arrays = np.random.RandomState(0), {}
    for key, variable in checkpoint_variables(build_model(config)).items():
        value = random.uniform(0.3, 0.7, variable.shape).astype(np.float32)
        axes = range(value.ndim)
        # Of the layouts of the port, the one that this key has.
        layouts = [value.ravel(), value]
        if value.ndim >= 2:
            layouts = [value.transpose(*axes[:-3:-1], *axes[:-2]), value.transpose(*axes[-2:], *axes[:-2]), *layouts]
        if key.endswith("cluster_centers"):
            layouts = [value[0].T]
        arrays[torch_name(key, semantic_decoder)] = next(
            each for each in layouts if from_torch(key, each, tuple(value.shape)) is not None
        )
    return arrays


class Launcher:
    """Starts commands, one at a time, from a process that has loaded TensorFlow; a context manager."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(_ROOT / "tests/helpers/announcing_command.py")],
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_):
        self._process.communicate(timeout=60)

    def start(self, commands, phase, folder):
        """Starts the command of a phase, which announces it, in `folder`; what it prints is kept there, too."""
        command = PHASES[phase][0]
        phases = [(name, module, function) for name, (of, module, function) in PHASES.items() if of == command]
        pipe, output = folder / "announcements", folder / "output.txt"
        os.mkfifo(pipe)
        output.unlink(missing_ok=True)
        request = json.dumps([phases, str(pipe), str(output), commands.line(command, folder)])
        self._process.stdin.write(request.encode() + b"\n")
        self._process.stdin.flush()
        return _Announced(int(self.answer()), pipe, output, self.answer)

    def answer(self):
        return self._process.stdout.readline()


class _Announced:
    def __init__(self, process, pipe, output, answer):
        self._process, self._output, self._answer = process, output, answer
        self._pipe = pipe.open(buffering=1)
        pipe.unlink()
        # When each phase began first, of those that `wait_for` has read.
        self.begun = {}

    def wait_for(self, phase, times=1):
        """Waits until the phase has begun so often; returns whether it did before the process ended."""
        while times:
            if not (line := self._pipe.readline()):
                return False
            self.begun.setdefault(line.strip(), time.monotonic())
            times -= line.strip() == phase
        return True

    def send(self, number):
        """Sends a signal; one that has ended already takes none."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, number)

    def end(self, seconds=300):
        """Waits for the end; returns the exit status, -N where signal N ended it."""
        watchdog = threading.Timer(seconds, self.send, [signal.SIGKILL])
        watchdog.start()
        status = int(self._answer())
        watchdog.cancel()
        self._pipe.close()
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    @property
    def output(self):
        """What it has printed."""
        return self._output.read_text()
