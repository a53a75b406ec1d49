"""The console command `deeplab2-kmax`: declares its sub-commands and calls the one that is asked for.

Only the function of a sub-command imports what it needs, so that `--help` does not wait for TensorFlow.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from deeplab2_kmax.command_exit import one_line_for_errors
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.version import __version__
from deeplab2_kmax.wording import did_you_mean, printable

if TYPE_CHECKING:
    from deeplab2_kmax.evaluation.scoring.score import Options
    from deeplab2_kmax.protos import config_pb2
    from deeplab2_kmax.serving import Predictor
    from deeplab2_kmax.serving.pre_labels import PreLabels

    # argparse has no public name for what `add_subparsers` returns.
    _Commands = argparse._SubParsersAction["_Parser"]
    # Takes the options and the arguments that the parser does not know; returns the exit status, None for 0.
    _Work = Callable[[argparse.Namespace, list[str]], Optional[int]]

# argparse's errors about a word that is none of several, and our own about a flag that no parser knows.
_NO_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")
_NO_FLAG = re.compile(r"unrecognized arguments: (--\w+)")
# Data set -> (module that converts it when run, what it reads).
_CONVERTERS = {
    "ade20k": ("deeplab2_kmax.converters.ade20k", "ADE20K in COCO's panoptic format"),
    "cityscapes": ("deeplab2_kmax.converters.cityscapes", "Cityscapes with its panoptic PNGs"),
    "coco": ("deeplab2_kmax.converters.coco", "COCO 2017 with its panoptic annotations"),
    "coco_instances": ("deeplab2_kmax.converters.coco_instances", "COCO instances JSON, with stuff if there is some"),
    "coco_panoptic": ("deeplab2_kmax.converters.coco_panoptic", "your own data in COCO's panoptic format"),
    "cvat": ("deeplab2_kmax.converters.cvat", "what CVAT exports as 'CVAT for images 1.1'"),
    "folder": ("deeplab2_kmax.converters.folder", "your own pictures with semantic and instance PNGs"),
    "label_studio": ("deeplab2_kmax.converters.label_studio", "what Label Studio exports as JSON"),
    "labelme": ("deeplab2_kmax.converters.labelme", "a folder of labelme's JSONs"),
    "mapillary": ("deeplab2_kmax.converters.mapillary", "Mapillary Vistas, v1.1 to v2.0"),
    "roboflow": ("deeplab2_kmax.converters.roboflow", "an export of Roboflow, COCO segmentation"),
    "shapes": ("deeplab2_kmax.converters.shapes", "drawn scenes, to try everything out"),
    "supervisely": ("deeplab2_kmax.converters.supervisely", "a project in Supervisely's format"),
    "voc": ("deeplab2_kmax.converters.voc", "masks in PASCAL VOC's layout, such as CVAT's"),
    "yolo": ("deeplab2_kmax.converters.yolo", "YOLO's outlines in text files, with data.yaml"),
}
_EXPORT_FORMATS = ("saved_model", "openvino", "onnx", "litert")
# As in `evaluation.scoring`, whose import would make --help wait.
_TRUTH_FORMATS = ("coco", "cityscapes", "raw", "records")
_RAW_FORMATS = ("two_channel_png", "three_channel_png", "two_channel_numpy_array")
_SUBMISSIONS = ("coco", "cityscapes-panoptic", "cityscapes-semantic", "cityscapes-instance")
_LOGGERS = ("wandb", "mlflow")
_REPORT_IMAGES = 500
# What has an effect on a report of a checkpoint only, and on one of files only.
_OF_CHECKPOINT = ("images", "outputs", "thresholds", "override")
_OF_FILES = ("truth_folder", "prediction_folder", "format", "dataset", "raw_format", "training_ids", "image_folder")
_LABELLING_TOOLS = ("coco", "cvat", "label_studio")
_CONFIG_HELP = "config of the experiment: a textproto file, or the name of a shipped config such as coco/kmax_r50"
_CHECKPOINT_HELP = "prefix of a checkpoint, or a folder, of which the last whole checkpoint is taken"
_OUTPUT_HELP = "local or remote folder to write to; made where missing"
_PRECISION_OF_CONFIG = (
    "--precision: expected --model DIR beside it, got a config, which says it itself; use"
    " --override=model_options.precision=mixed_bfloat16"
)
# What --mode can be for each command.
_MODES = {
    "train": "train_and_eval evaluates at intervals as well",
    "eval": "continuous_eval waits for new checkpoints and evaluates each",
}


def main(argv: Sequence[str] | None = None, prog: str = "deeplab2-kmax") -> None:
    """Runs a command line and ends the process.

    The exit status is 0 after success and `--help`, 1 after a mistake in what the user gave, which prints one line on
    stderr, 2 after a mistake in the flags, 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        argv: the arguments; None takes those of the process.
        prog: how the user calls the command, for its help.
    """
    with one_line_for_errors():
        # Not parse_args: what `convert` does not know are flags of the converter.
        options, rest = _parser(prog).parse_known_args(argv)
        if rest and options.run is not _convert:
            options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
        from deeplab2_kmax.terminal import quiet_libraries, show_warnings_as_ours

        # Has to come before the first import of TensorFlow, and so before any sub-command.
        quiet_libraries()
        show_warnings_as_ours()
        with _named_packages():
            status = options.run(options, rest)
    sys.exit(status or 0)


@contextlib.contextmanager
def _named_packages() -> Iterator[None]:
    """Raises UserError where a package is missing, as where only what `predict` needs for some exports is installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("deeplab2_kmax"):
            raise
        raise UserError(
            f"this command needs the package {error.name}, which is not installed; deeplab2-kmax doctor says what to"
            " install"
        ) from error


class _Parser(argparse.ArgumentParser):
    """Suggests what a mistyped command, choice or flag may have meant. Sub-commands get parsers of this class, too."""

    def error(self, message: str) -> NoReturn:
        if choice := _NO_CHOICE.search(message):
            message += did_you_mean(choice[1], re.findall(r"[\w-]+", choice[2]))
        elif flag := _NO_FLAG.search(message):
            message += did_you_mean(flag[1], re.findall(r"--\w+", self.format_usage()))
        super().error(printable(message))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Panoptic segmentation with mask transformers.")
    parser.add_argument("--version", action="version", version=f"deeplab2_kmax {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for mode in ("train", "eval"):
        _add_run(commands, mode)
    _add_predict(commands)
    _add_score(commands)
    _add_submission(commands)
    _add_export(commands)
    _add_convert(commands)
    _add_check_dataset(commands)
    _add_convert_checkpoint(commands)
    _add_visualize(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_tune_postprocessing(commands)
    _add_config(commands)
    _add_benchmark(commands)
    _add(commands, "doctor", _doctor, "print versions, devices, and which dependencies are missing or do not fit")
    return parser


def _add(commands: _Commands, name: str, run: _Work | None, summary: str, details: str = "", **options: Any) -> _Parser:
    """Adds a sub-command.

    Args:
        commands: what to add it to.
        name: of the sub-command.
        run: does its work; None for one that only groups others.
        summary: a line for the list of commands, and the first sentence of the command's own help.
        details: what its own help says after that.
        **options: for the parser.
    """
    description = f"{summary[0].upper()}{summary[1:]}.{details}"
    parser = commands.add_parser(name, help=summary, description=description, **options)
    # The options then say what to call, and which parser is to complain about them.
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_config_flags(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--config_file", metavar="FILE", required=required, help=_CONFIG_HELP)
    parser.add_argument(
        "--override",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="change a field of the config, e.g. train_dataset_options.batch_size=2; repeatable",
    )


def _add_run(commands: _Commands, mode: str) -> None:
    summary = {"train": "train a model", "eval": "evaluate the latest checkpoint of a model"}[mode]
    parser = _add(commands, mode, _run, summary)
    _add_config_flags(parser, required=True)
    modes = {"train": ["train", "train_and_eval"], "eval": ["eval", "continuous_eval"]}[mode]
    parser.add_argument("--mode", choices=modes, default=mode, help=f"{_MODES[mode]} (default: {mode})")
    parser.add_argument(
        "--model_dir",
        metavar="DIR",
        default="runs",
        help="local or remote folder; results go to DIR/<experiment_name> (default: runs)",
    )
    parser.add_argument(
        "--num_gpus", metavar="N", type=int, default=0, help="number of GPUs; 0 runs on the CPU (default: 0)"
    )
    parser.add_argument("--master", metavar="ADDRESS", help="address of a TPU to run on")
    parser.add_argument(
        "--logger",
        action="append",
        choices=_LOGGERS,
        default=[],
        help="where figures go beside TensorBoard, as trainer_options.loggers of the config; repeatable",
    )
    if mode == "train":
        parser.add_argument(
            "--print_variables", action="store_true", help="print how each variable is updated and exit"
        )


def _add_predict(commands: _Commands) -> None:
    parser = _add(
        commands, "predict", _predict, "segment pictures; write an overlay, a panoptic map and a segment table of each"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help=_OUTPUT_HELP)
    parser.add_argument("--model", metavar="DIR", help="an exported model")
    _add_precision(parser)
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="data set of --model, for DeepLab2's exports, which do not name it: a name or a descriptor file",
    )
    _add_config_flags(parser, required=False)
    parser.add_argument(
        "--checkpoint", metavar="PATH", help=f"instead of --model, with --config_file: {_CHECKPOINT_HELP}"
    )
    parser.add_argument(
        "--labels_for",
        action="append",
        choices=_LABELLING_TOOLS,
        default=[],
        help="also write the segments of all pictures to one file, which a labelling tool imports; repeatable",
    )
    parser.add_argument(
        "--image_url",
        metavar="URL",
        help="with --labels_for=label_studio: what comes before the names of pictures there (default: that of its local"
        " storage, /data/local-files/?d=)",
    )


def _add_score(commands: _Commands) -> None:
    summary = "panoptic quality of predictions in files, of any model, against a truth"
    parser = _add(commands, "score", _score, summary, " It needs neither a model nor TensorFlow.")
    parser.add_argument(
        "--truth",
        metavar="PATH",
        required=True,
        help="COCO's or Cityscapes' panoptic annotations (.json), Cityscapes' gtFine/val, a folder of raw maps, or a"
        " pattern of TFRecord files",
    )
    parser.add_argument(
        "--prediction",
        metavar="PATH",
        required=True,
        help="annotations in COCO's panoptic format (.json), a folder that `predict` has written, or a folder of raw"
        " maps as evaluation writes them",
    )
    _add_map_flags(parser)
    parser.add_argument("--processes", metavar="N", type=int, help="number of processes (default: one for each core)")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write the results, in the form of metrics-<step>.json, and beside them those of each image",
    )


def _add_submission(commands: _Commands) -> None:
    summary = "write predictions in the form that a test server takes"
    parser = _add(commands, "submission", _submission, summary)
    parser.add_argument("form", choices=_SUBMISSIONS, help="what to write")
    parser.add_argument(
        "predictions", metavar="PREDICTIONS", help="a folder that `predict` has written, or raw maps of evaluation"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        required=True,
        help="for coco a ZIP file such as panoptic_test-dev2017_kmax_results.zip, else a new folder",
    )
    parser.add_argument(
        "--images", metavar="FILE", help="for coco: image_info_test-dev2017.json, say, which lists the images"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="data set of raw maps, which do not name it: a name or a descriptor file"
    )
    _add_raw_flags(parser)


def _add_raw_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--raw_format", choices=_RAW_FORMATS, help="format of raw maps (default: .npy files, else two_channel_png)"
    )
    parser.add_argument(
        "--training_ids",
        action="store_true",
        help="raw maps hold the class ids of training, not those of the data set's own annotation files",
    )


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        help="with --model, an export for OpenVINO: what the network is computed in; bfloat16 is faster, and less exact"
        " (default: float32)",
    )


def _add_export(commands: _Commands) -> None:
    parser = _add(commands, "export", _export, "write a trained model as a SavedModel, or for another runtime")
    _add_config_flags(parser, required=True)
    parser.add_argument("--checkpoint", metavar="PATH", required=True, help=_CHECKPOINT_HELP)
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write, local or remote")
    parser.add_argument(
        "--format",
        choices=_EXPORT_FORMATS,
        default="saved_model",
        help="what to write; what is not for TensorFlow is run and compared before (default: saved_model)",
    )
    parser.add_argument(
        "--quantize",
        metavar="DIR",
        help="with --format=openvino: compute the network in INT8, with ranges found from the pictures of this folder",
    )


def _add_convert(commands: _Commands) -> None:
    known = "".join(f"\n  {name:15} {what}" for name, (_, what) in _CONVERTERS.items())
    # Each converter parses flags of its own, --help among them: what follows the name is passed on to it.
    parser = _add(
        commands,
        "convert",
        _convert,
        "convert a data set to TFRecords",
        details=f" `convert NAME --help` prints the flags of one converter.\n\nNAME is one of{known}",
        add_help=False,
        usage="%(prog)s NAME --flag=value ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="?", choices=sorted(_CONVERTERS), metavar="NAME", help=argparse.SUPPRESS)


def _add_check_dataset(commands: _Commands) -> None:
    summary = "decode all records and report every error in them; exit status 1 if training would fail"
    parser = _add(commands, "check-dataset", _check_dataset, summary)
    _add_config_flags(parser, required=False)
    parser.add_argument(
        "--dataset", metavar="NAME", help="instead of --config_file: name or descriptor file of the data set"
    )
    parser.add_argument(
        "--file_pattern",
        metavar="PATTERN",
        action="append",
        default=[],
        help="with --dataset: its TFRecord files; repeatable",
    )
    parser.add_argument(
        "--max_thing_id", metavar="N", type=int, help="with --dataset: largest number of things in an image"
    )
    parser.add_argument(
        "--num_mask_slots", metavar="N", type=int, help="with --dataset: number of mask slots of the model"
    )
    parser.add_argument("--html", metavar="FILE", help="also write a page with sample overlays")


def _add_convert_checkpoint(commands: _Commands) -> None:
    summary = "convert weights of bytedance/kmax-deeplab (PyTorch) to a checkpoint with its config"
    parser = _add(commands, "convert-checkpoint", _convert_checkpoint, summary)
    parser.add_argument("source", metavar="SOURCE", help="a .pth file of PyTorch or a .pkl file of detectron2")
    _add_config_flags(parser, required=True)
    parser.add_argument("-o", "--output", metavar="PREFIX", required=True, help="prefix of the checkpoint to write")


def _add_config(commands: _Commands) -> None:
    summary = "print a config in full, with its bases merged in and every inferred field made explicit"
    parser = _add(commands, "config", _config, summary)
    parser.add_argument("file", nargs="?", metavar="FILE", help=_CONFIG_HELP)
    _add_config_flags(parser, required=False)
    parser.add_argument("--diff", metavar="OTHER", help="print only the fields that differ from the config OTHER")


def _add_visualize(commands: _Commands) -> None:
    parser = _add(commands, "visualize", None, "draw what happens inside a model")
    views = parser.add_subparsers(title="views", metavar="VIEW", required=True)
    summary = "draw which cluster each pixel belongs to in each decoder layer, and how the centers converge"
    clusters = _add(views, "clusters", _visualize_clusters, summary)
    clusters.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    _add_config_flags(clusters, required=True)
    clusters.add_argument("--checkpoint", metavar="PATH", required=True, help=_CHECKPOINT_HELP)
    clusters.add_argument("-o", "--output", metavar="DIR", required=True, help=_OUTPUT_HELP)
    clusters.add_argument(
        "--layers", metavar="NAME,NAME", help="only these layers, e.g. stride32_layer1,stride8_layer1 (default: all)"
    )


def _add_report(commands: _Commands) -> None:
    summary = "write a page about what a model gets right and wrong, with its best and worst pictures"
    parser = _add(
        commands,
        "report",
        _report,
        summary,
        details=" Of a checkpoint (--config_file, --checkpoint), or of predictions of any model in files (--truth,"
        " --prediction).",
    )
    _add_config_flags(parser, required=False)
    parser.add_argument("--checkpoint", metavar="PATH", help=f"with --config_file: {_CHECKPOINT_HELP}")
    parser.add_argument("--truth", metavar="PATH", help="as for score")
    parser.add_argument("--prediction", metavar="PATH", help="with --truth: as for score")
    _add_map_flags(parser)
    _add_image_folder(parser)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the page, HTML, local or remote")
    # Without a default here, so that one is told from what a user gave for a report that it has no effect on.
    parser.add_argument(
        "--images",
        metavar="N",
        type=int,
        help=f"of a checkpoint: the first N images of the evaluation data (default: {_REPORT_IMAGES})",
    )
    parser.add_argument(
        "--pictures", metavar="N", type=int, default=6, help="show the N best and the N worst images (default: 6)"
    )
    parser.add_argument(
        "--outputs",
        metavar="DIR",
        help="of a checkpoint: folder for what the network says, so that the next report need not run it",
    )
    parser.add_argument(
        "--thresholds",
        action=argparse.BooleanOptionalAction,
        help="of a checkpoint: measure PQ under other thresholds (default: yes)",
    )


def _add_map_flags(parser: argparse.ArgumentParser, sides: Sequence[str] = ("truth", "prediction")) -> None:
    """How to read the label maps of --truth and --prediction; `sides` are those whose PNGs may lie elsewhere."""
    parser.set_defaults(truth_folder=None, prediction_folder=None)
    for side in sides:
        parser.add_argument(
            f"--{side}_folder", metavar="DIR", help=f"with --{side}=NAME.json: its PNGs (default: the folder NAME)"
        )
    parser.add_argument("--format", choices=_TRUTH_FORMATS, help="format of the truth (default: recognized)")
    parser.add_argument(
        "--dataset", metavar="NAME", help="data set of raw maps and records: a name or a descriptor file"
    )
    _add_raw_flags(parser)


def _add_image_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image_folder", metavar="DIR", help="the images, by name (default: those of records, if --truth is records)"
    )


def _add_compare(commands: _Commands) -> None:
    parser = _add(
        commands,
        "compare",
        _compare,
        "compare results on the same images, and say which differences these images can show",
        details=" Each is compared with the first.",
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="folder of a run, or a file of an evaluation or of score: metrics-<step>.json, images-<step>.npz",
    )
    parser.add_argument(
        "--draws", metavar="N", type=int, default=2000, help="how often images are drawn, from 200 (default: 2000)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write all figures to a JSON file, local or remote")
    parser.add_argument("--html", metavar="FILE", help="also write a page, local or remote")
    parser.add_argument(
        "--truth",
        metavar="PATH",
        help="with --html: show images that one side segments better than the other; as for score",
    )
    parser.add_argument(
        "--prediction",
        metavar="PATH",
        action="append",
        default=[],
        help="with --truth: the label maps of each result, in their order, as for score",
    )
    # One folder for the PNGs of all predictions would be wrong.
    _add_map_flags(parser, sides=("truth",))
    _add_image_folder(parser)
    parser.add_argument("--pictures", metavar="N", type=int, default=6, help="show N images of each kind (default: 6)")


def _add_tune_postprocessing(commands: _Commands) -> None:
    parser = _add(
        commands,
        "tune-postprocessing",
        _tune_postprocessing,
        "search the thresholds of post-processing with the highest PQ, and print the lines for the config",
        details=" The network runs once. Half of the images is held out, and tells what the thresholds gain.",
    )
    _add_config_flags(parser, required=True)
    parser.add_argument("--checkpoint", metavar="PATH", required=True, help=_CHECKPOINT_HELP)
    parser.add_argument("--trials", metavar="N", type=int, default=100, help="sets of values to try (default: 100)")
    parser.add_argument(
        "--images", metavar="N", type=int, default=500, help="the first N images of the evaluation data (default: 500)"
    )
    parser.add_argument(
        "--outputs", metavar="DIR", help="folder for what the network says, so that the next search need not run it"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="chooses the halves (default: 0)")


def _add_benchmark(commands: _Commands) -> None:
    parts = _add(commands, "benchmark", None, "measure the speed of one part of a run").add_subparsers(
        title="parts", metavar="PART", required=True
    )
    parser = _add(parts, "input", _benchmark_input, "time the training input, stage by stage, and say what limits it")
    _add_config_flags(parser, required=True)
    parser.add_argument(
        "--images", metavar="N", type=int, default=64, help="number of images to time each stage with (default: 64)"
    )
    _add_benchmark_inference(parts)


def _add_benchmark_inference(parts: _Commands) -> None:
    parser = _add(
        parts,
        "inference",
        _benchmark_inference,
        "time models from picture file to panoptic map, stage by stage, and from the start of a process",
        details=" Several models take turns, so that their ratios are fair on a busy machine.",
    )
    parser.add_argument("--model", metavar="DIR", action="append", default=[], help="an exported model; repeatable")
    _add_precision(parser)
    _add_config_flags(parser, required=False)
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help=f"with --config_file: {_CHECKPOINT_HELP} (default: random weights, with segments made up)",
    )
    parser.add_argument("--image", metavar="FILE", help="a picture file (default: a drawn one of 640 x 480)")
    parser.add_argument(
        "--sizes",
        metavar="SIZE,SIZE",
        help="sizes of the network's input, such as 641,1025x2049, height first (default: that of each model)",
    )
    parser.add_argument("--batches", metavar="N,N", default="1", help="numbers of pictures in a call (default: 1)")
    parser.add_argument("--rounds", metavar="N", type=int, default=10, help="how often each is timed (default: 10)")
    parser.add_argument(
        "--cold_starts",
        metavar="N",
        type=int,
        default=1,
        help="how often each is started in a process of its own; 0 leaves out first calls and memory (default: 1)",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write all figures to a CSV file, local or remote")
    parser.add_argument("--plot", metavar="FILE", help="also draw the times to a PNG, local or remote")


def _loaded_config(options: argparse.Namespace) -> config_pb2.ExperimentOptions:
    """The config that the flags of `_add_config_flags` name."""
    from deeplab2_kmax.programs import load_config_and_print_notes

    return load_config_and_print_notes(options.config_file, options.override)


def _benchmark_input(options: argparse.Namespace, _: list[str]) -> None:
    from deeplab2_kmax.cli.input_benchmark import input_report
    from deeplab2_kmax.config.placeholders import require_filled_in, unused_beside

    config = _loaded_config(options)
    require_filled_in(config, "benchmark input", [*unused_beside(config, "file_pattern"), "eval_dataset_options"])
    _print(input_report(config.train_dataset_options, options.images))


def _benchmark_inference(options: argparse.Namespace, _: list[str]) -> None:
    of_config = options.checkpoint or options.override
    if bool(options.model) == bool(options.config_file) or (options.model and of_config):
        raise UserError(
            "benchmark inference: which model? expected either --model DIR, or --config_file FILE, which --checkpoint"
            " PATH and --override may go with"
        )
    if options.precision and not options.model:
        raise UserError(_PRECISION_OF_CONFIG)
    for flag, least in (("rounds", 1), ("cold_starts", 0)):
        if (number := getattr(options, flag)) < least:
            raise UserError(f"--{flag}: expected a number from {least}, got {number}")
    from deeplab2_kmax.cli.inference_benchmark.models import Source
    from deeplab2_kmax.cli.inference_benchmark.run import Sweep, benchmark, parse_batches, parse_sizes

    sizes = parse_sizes(options.sizes) if options.sizes is not None else []
    if options.model:
        sources = [Source(model=model, precision=options.precision) for model in options.model]
    else:
        _loaded_config(options)  # Prints what is to be said about it.
        sources = [Source(None, options.config_file, tuple(options.override), options.checkpoint)]
    sweep = Sweep(
        sources=sources,
        image=options.image,
        sizes=sizes,
        batches=parse_batches(options.batches),
        rounds=options.rounds,
        cold_starts=options.cold_starts,
        csv=options.csv,
        plot=options.plot,
    )
    benchmark(sweep, _print)


def _run(options: argparse.Namespace, _: list[str]) -> None:
    from deeplab2_kmax import training

    config = _loaded_config(options)
    if getattr(options, "print_variables", False):
        _print(training.list_variables(config))
        return
    config.trainer_options.loggers.extend(options.logger)
    training.run_experiment(config, options.mode, options.model_dir, num_gpus=options.num_gpus, master=options.master)


def _predict(options: argparse.Namespace, _: list[str]) -> int:
    from deeplab2_kmax.cli.output_files import free_memory_between_steps

    free_memory_between_steps()
    if options.image_url is not None and "label_studio" not in options.labels_for:
        raise UserError("predict: --image_url needs --labels_for=label_studio, whose tasks it is for")
    predictor = _predictor(options)
    from deeplab2_kmax.cli.predict import predict_files

    labels: Sequence[PreLabels] = ()
    if options.labels_for:
        from deeplab2_kmax.serving.pre_labels import LOCAL_FILES, pre_labels

        image_url = LOCAL_FILES if options.image_url is None else options.image_url
        tools = list(dict.fromkeys(options.labels_for))
        labels = pre_labels(tools, predictor.dataset, options.model or options.checkpoint, image_url)
    return 1 if predict_files(predictor, options.images, options.output, _print, _print_error, labels) else 0


def _score(options: argparse.Namespace, _: list[str]) -> None:
    from deeplab2_kmax.cli.score import score

    score(options.truth, options.prediction, _map_options(options), options.processes, options.json, _print)


def _submission(options: argparse.Namespace, _: list[str]) -> None:
    from deeplab2_kmax.cli.submission import submission
    from deeplab2_kmax.evaluation.submission.predicted_maps import PredictionFolder

    predictions = PredictionFolder(options.predictions, options.dataset, options.raw_format, options.training_ids)
    submission(options.form, predictions, options.output, options.images, _print)


def _predictor(options: argparse.Namespace) -> Predictor:
    """The model that the flags of `predict` name."""
    from_export, from_checkpoint = bool(options.model), bool(options.config_file and options.checkpoint)
    if from_export == from_checkpoint or (from_export and (options.config_file or options.checkpoint)):
        raise UserError(
            "predict: which model? expected either --model DIR, or --config_file FILE with --checkpoint PATH"
        )
    if options.precision and not from_export:
        raise UserError(_PRECISION_OF_CONFIG)
    from deeplab2_kmax.serving import Predictor

    if from_export:
        return Predictor.from_saved_model(options.model, options.dataset, options.override, options.precision)
    return Predictor.from_checkpoint(_loaded_config(options), options.checkpoint)


def _export(options: argparse.Namespace, _: list[str]) -> None:
    from deeplab2_kmax.serving import export

    config = _loaded_config(options)
    folder = export(config, options.checkpoint, options.output, options.format, options.quantize)
    print(f"exported to {folder}")
    if options.quantize:
        from deeplab2_kmax.serving.int8 import cost_of

        print(cost_of(folder))


def _convert(options: argparse.Namespace, rest: list[str]) -> None:
    if options.data is None:
        if not {"-h", "--help"} & set(rest):
            options.parser.error(f"expected the name of a data set, one of {', '.join(_CONVERTERS)}")
        options.parser.print_help()
        return
    # Converters are programs of their own, whose flags absl parses as in DeepLab2.
    module, _ = _CONVERTERS[options.data]
    sys.argv = [f"deeplab2-kmax convert {options.data}", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _check_dataset(options: argparse.Namespace, _: list[str]) -> int:
    by_files = bool(options.dataset and options.file_pattern)
    if bool(options.config_file) == by_files or (options.config_file and (options.dataset or options.file_pattern)):
        raise UserError(
            "check-dataset: expected either --config_file FILE, or --dataset NAME with --file_pattern PATTERN"
        )
    from deeplab2_kmax.cli import check_dataset as command
    from deeplab2_kmax.dataset_check import Limits

    if by_files:
        limits = Limits(options.max_thing_id, options.num_mask_slots)
        reports = command.check_files(options.dataset, options.file_pattern, limits)
    else:
        reports = command.check_config_file(options.config_file, options.override)
    return command.tell(reports, options.html, _print)


def _convert_checkpoint(options: argparse.Namespace, _: list[str]) -> None:
    from deeplab2_kmax.checkpoint_conversion import convert_checkpoint
    from deeplab2_kmax.wording import counted

    done = convert_checkpoint(_loaded_config(options), options.source, options.output)
    ignored = f"left out, as no weights: {len(done.ignored)}"
    print(f"{counted(done.converted, 'tensor')} of {options.source} converted; {ignored}")
    print(f"checkpoint: {done.checkpoint}\nits config: {done.config}")


def _visualize_clusters(options: argparse.Namespace, _: list[str]) -> int:
    from deeplab2_kmax.cli.output_files import free_memory_between_steps

    free_memory_between_steps()
    from deeplab2_kmax.cli.visualize import draw_files
    from deeplab2_kmax.serving import ClusterViewer

    config = _loaded_config(options)
    viewer = ClusterViewer.from_checkpoint(config, options.checkpoint)
    layers = options.layers.split(",") if options.layers is not None else None
    return 1 if draw_files(viewer, options.images, options.output, layers, _print, _print_error) else 0


def _report(options: argparse.Namespace, _: list[str]) -> None:
    for flag in ("images", "pictures"):
        if (number := getattr(options, flag)) is not None and number < 1:
            raise UserError(f"--{flag}: expected a number from 1, got {number}")
    of_checkpoint, of_files = (
        bool(options.config_file and options.checkpoint),
        bool(options.truth and options.prediction),
    )
    others = (options.truth, options.prediction) if of_checkpoint else (options.config_file, options.checkpoint)
    if of_checkpoint == of_files or any(others):
        raise UserError(
            "report: of what? expected either --config_file FILE with --checkpoint PATH, or --truth PATH with"
            " --prediction PATH"
        )
    if of_files:
        _refuse_unused(options, "report", _OF_CHECKPOINT, "--config_file")
    else:
        _refuse_unused(options, "report", _OF_FILES, "--truth")
    from deeplab2_kmax.cli.output_files import require_output_file, write_result

    inputs = (options.truth, options.prediction, options.config_file, options.checkpoint, options.dataset)
    require_output_file("--output", options.output, [path for path in inputs if path])
    command = shlex.join(["deeplab2-kmax", *sys.argv[1:]])
    if of_files:
        from deeplab2_kmax.results.from_files import files_report

        how = _map_options(options)
        page = files_report(options.truth, options.prediction, how, command, options.image_folder, options.pictures)
    else:
        from deeplab2_kmax.results.from_checkpoint import checkpoint_report

        page = checkpoint_report(
            _loaded_config(options),
            options.checkpoint,
            command,
            outputs=options.outputs,
            most_images=options.images or _REPORT_IMAGES,
            pictures=options.pictures,
            sweeps=options.thresholds is not False,
            say=_print,
        )
    write_result(options.output, page.encode())
    _print(f"page: {options.output}")


def _refuse_unused(options: argparse.Namespace, command: str, flags: Sequence[str], beside: str) -> None:
    """Raises UserError for the first flag that was given though it has an effect only with the flag `beside`.

    Flags that were not given are None, False, or an empty list; `--no-thresholds` is False, and given.
    """
    for flag in flags:
        value = getattr(options, flag)
        if value or (value is False and flag == "thresholds"):
            raise UserError(f"{command}: expected --{flag} with {beside} only; leave it out")


def _map_options(options: argparse.Namespace) -> Options:
    """How to read label maps, from the flags of `_add_map_flags`."""
    from deeplab2_kmax.evaluation.scoring.score import Options

    return Options(
        options.format,
        options.truth_folder,
        options.prediction_folder,
        options.dataset,
        options.raw_format,
        options.training_ids,
    )


def _compare(options: argparse.Namespace, _: list[str]) -> None:
    if options.pictures < 1:
        raise UserError(f"--pictures: expected a number from 1, got {options.pictures}")
    if (options.truth or options.prediction) and not (options.truth and options.prediction and options.html):
        raise UserError("compare: expected --html, --truth and a --prediction for each result together; one is missing")
    if not options.truth:
        _refuse_unused(options, "compare", _OF_FILES, "--truth")
    from deeplab2_kmax import files
    from deeplab2_kmax.cli.output_files import require_output_file, write_result
    from deeplab2_kmax.results.comparison import compare

    comparison = compare(options.results, options.draws)
    inputs = [*options.results, *comparison.paths, *options.prediction, *filter(None, (options.truth, options.dataset))]
    for flag in ("html", "json"):
        if (path := getattr(options, flag)) is not None:
            require_output_file(f"--{flag}", path, inputs)
    _print(comparison.report())
    if options.html:
        from deeplab2_kmax.results.comparison_page import Pictures, comparison_page

        pictures = None
        if options.truth:
            pictures = Pictures(options.truth, options.prediction, _map_options(options), options.image_folder)
        command = shlex.join(["deeplab2-kmax", *sys.argv[1:]])
        page = comparison_page(comparison, command, pictures, options.pictures)
        write_result(options.html, page.encode())
        _print(f"page: {options.html}")
    if options.json:
        write_result(options.json, files.json_text(comparison.as_dict()).encode())


def _tune_postprocessing(options: argparse.Namespace, _: list[str]) -> None:
    if options.images < 2:
        raise UserError(f"--images: expected a number from 2, as one half is held out; got {options.images}")
    from deeplab2_kmax.tuning.tuning import require_optuna, require_search, tune

    # The network may take long, so what is missing or wrong is told before.
    require_search(options.trials, options.seed)
    require_optuna()
    from deeplab2_kmax.tuning.network_outputs import network_outputs

    config = _loaded_config(options)
    images = network_outputs(config, options.checkpoint, options.outputs, options.images, _print)
    _print(f"\n{tune(config, images, options.trials, options.seed, _print).report()}")


def _config(options: argparse.Namespace, _: list[str]) -> None:
    from deeplab2_kmax.cli.config_listing import config_listing, difference_listing

    if bool(options.file) == bool(options.config_file):
        raise UserError("config: expected one config, either as FILE or by --config_file FILE")
    file = options.file or options.config_file
    if options.diff:
        _print(difference_listing(options.diff, file, options.override))
    else:
        _print(config_listing(file, options.override))


def _doctor(options: argparse.Namespace, _: list[str]) -> int:
    from deeplab2_kmax.cli.doctor import diagnose

    report, well = diagnose()
    print(report)
    return 0 if well else 1


def _print(text: str) -> None:
    print(text, flush=True)


def _print_error(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
