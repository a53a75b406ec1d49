"""The console command `deeplab2-kmax`. Modules that need TensorFlow are imported only by the sub-command that runs."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence

from deeplab2_kmax.errors import UserError, user_errors_as_one_line
from deeplab2_kmax.version import __version__

# Data set -> (module that converts it when run, what it reads).
_CONVERTERS = {
    "ade20k": ("deeplab2_kmax.converters.ade20k", "ADE20K in COCO's panoptic format"),
    "cityscapes": ("deeplab2_kmax.converters.cityscapes", "Cityscapes with its panoptic PNGs"),
    "coco": ("deeplab2_kmax.converters.coco", "COCO 2017 with its panoptic annotations"),
    "coco_panoptic": ("deeplab2_kmax.converters.coco_panoptic", "your own data in COCO's panoptic format"),
    "folder": ("deeplab2_kmax.converters.folder", "your own pictures with semantic and instance PNGs"),
    "shapes": ("deeplab2_kmax.converters.shapes", "drawn scenes, to try everything out"),
}


def main(argv: Sequence[str] | None = None, prog: str = "deeplab2-kmax") -> None:
    """Runs the command line; a user's mistake prints one line and ends with exit status 1.

    Args:
        argv: the arguments; default: those of the process.
        prog: how the user calls the command, for its help.
    """
    options, rest = _parser(prog).parse_known_args(argv)
    if rest and options.run is not _convert:
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    from deeplab2_kmax.terminal import quiet_libraries

    quiet_libraries()
    with user_errors_as_one_line():
        try:
            status = options.run(options, rest)
        except BrokenPipeError:
            # Whoever read the output, `head` for instance, has seen enough; nothing is left to say at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 141
    sys.exit(status or 0)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Panoptic segmentation with mask transformers.")
    parser.add_argument("--version", action="version", version=f"deeplab2_kmax {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for mode in ("train", "eval"):
        _add_run(commands, mode)
    _add_predict(commands)
    _add_export(commands)
    _add_convert(commands)
    _add_check_dataset(commands)
    _add_convert_checkpoint(commands)
    _add_visualize(commands)
    _add_config(commands)
    _add_benchmark(commands)
    _add(commands, "doctor", _doctor, "print versions, devices and what is missing")
    return parser


def _add(commands, name: str, run, summary: str, **options) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", **options)
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_config_flags(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--config_file", metavar="FILE", required=required, help="config of the experiment (textproto)")
    parser.add_argument(
        "--override", metavar="FIELD=VALUE", action="append", default=[], help="change a config field; repeatable"
    )


def _add_run(commands, mode: str) -> None:
    summary = {"train": "train a model", "eval": "evaluate the latest checkpoint of a model"}[mode]
    parser = _add(commands, mode, _run, summary)
    _add_config_flags(parser, required=True)
    modes = {"train": ["train", "train_and_eval"], "eval": ["eval", "continuous_eval"]}[mode]
    parser.add_argument("--mode", choices=modes, default=mode)
    parser.add_argument(
        "--model_dir", metavar="DIR", default="runs", help="results go to DIR/<experiment_name> (default: runs)"
    )
    parser.add_argument("--num_gpus", type=int, default=0, help="number of GPUs; 0 runs on the CPU")
    parser.add_argument("--master", help="address of a TPU")
    if mode == "train":
        parser.add_argument(
            "--print_variables", action="store_true", help="print how each variable is updated, and exit"
        )


def _add_predict(commands) -> None:
    parser = _add(commands, "predict", _predict, "segment pictures: overlay, panoptic map and segment table of each")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write to; made where missing")
    parser.add_argument("--model", metavar="DIR", help="an exported model")
    parser.add_argument("--dataset", help="data set of --model, where the export does not say it (DeepLab2's)")
    _add_config_flags(parser, required=False)
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="instead of --model: a checkpoint of --config_file, or a folder of them"
    )


def _add_export(commands) -> None:
    parser = _add(commands, "export", _export, "write a trained model as a SavedModel")
    _add_config_flags(parser, required=True)
    parser.add_argument("--checkpoint", metavar="PATH", required=True, help="a checkpoint, or a folder: its latest one")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the SavedModel")


def _add_convert(commands) -> None:
    summary = "convert a data set to TFRecords; `convert NAME --help` tells its flags"
    # Each converter has flags of its own, --help among them: what follows the name is passed on.
    parser = _add(
        commands,
        "convert",
        _convert,
        summary,
        add_help=False,
        usage=f"{commands._prog_prefix} convert NAME ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.description += "\n\nNAME is one of\n" + "\n".join(
        f"  {name:15} {what}" for name, (_, what) in _CONVERTERS.items()
    )
    parser.add_argument("data", nargs="?", choices=sorted(_CONVERTERS), metavar="NAME", help=argparse.SUPPRESS)


def _add_check_dataset(commands) -> None:
    summary = "decode all records and name what is wrong with them; the exit status says whether training can start"
    parser = _add(commands, "check-dataset", _check_dataset, summary)
    _add_config_flags(parser, required=False)
    parser.add_argument("--dataset", help="instead of --config_file: descriptor file or name of the data set")
    parser.add_argument(
        "--file_pattern", metavar="PATTERN", action="append", default=[], help="its TFRecord files; repeatable"
    )
    parser.add_argument("--max_thing_id", type=int, help="with --dataset: the most things an image may have")
    parser.add_argument("--num_mask_slots", type=int, help="with --dataset: the mask slots of the model")
    parser.add_argument("--html", metavar="FILE", help="write a page with sample overlays, too")


def _add_convert_checkpoint(commands) -> None:
    summary = "write weights of bytedance/kmax-deeplab (PyTorch) as a checkpoint with its config"
    parser = _add(commands, "convert-checkpoint", _convert_checkpoint, summary)
    parser.add_argument("source", metavar="SOURCE", help="a .pth of PyTorch or a .pkl of detectron2")
    _add_config_flags(parser, required=True)
    parser.add_argument("-o", "--output", metavar="PREFIX", required=True, help="prefix of the checkpoint to write")


def _add_config(commands) -> None:
    summary = "print a config in full: bases merged in, every inferred field made explicit"
    parser = _add(commands, "config", _config, summary)
    parser.add_argument("file", nargs="?", metavar="FILE", help="config of the experiment (textproto)")
    _add_config_flags(parser, required=False)
    parser.add_argument("--diff", metavar="OTHER", help="print only what differs from the config OTHER")


def _add_visualize(commands) -> None:
    parser = _add(commands, "visualize", None, "draw what a model does inside")
    views = parser.add_subparsers(title="views", metavar="VIEW", required=True)
    summary = "for each decoder layer, which cluster each pixel belongs to, and how the centers converge"
    clusters = _add(views, "clusters", _visualize_clusters, summary)
    clusters.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    _add_config_flags(clusters, required=True)
    clusters.add_argument(
        "--checkpoint", metavar="PATH", required=True, help="a checkpoint, or a folder: its latest one"
    )
    clusters.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write to; made where missing")
    clusters.add_argument(
        "--layers", metavar="NAME,NAME", help="only these layers, e.g. stride32_layer1,stride8_layer1 (default: all)"
    )


def _add_benchmark(commands) -> None:
    parts = _add(commands, "benchmark", None, "time a part by itself").add_subparsers(
        title="parts", metavar="PART", required=True
    )
    parser = _add(parts, "input", _benchmark_input, "the training input, stage by stage, and what limits it")
    _add_config_flags(parser, required=True)
    parser.add_argument("--images", type=int, default=64, help="images to time for each stage (default: 64)")


def _benchmark_input(options, _) -> None:
    from deeplab2_kmax.cli.input_benchmark import input_report
    from deeplab2_kmax.config import load_config

    _print(input_report(load_config(options.config_file, options.override).train_dataset_options, options.images))


def _run(options, _) -> None:
    from deeplab2_kmax import training
    from deeplab2_kmax.config import load_config

    config = load_config(options.config_file, options.override)
    if getattr(options, "print_variables", False):
        _print(training.list_variables(config))
        return
    training.run_experiment(config, options.mode, options.model_dir, num_gpus=options.num_gpus, master=options.master)


def _predict(options, _) -> int:
    predictor = _predictor(options)
    from deeplab2_kmax.cli.predict import predict_files

    return 1 if predict_files(predictor, options.images, options.output, report=_print, complain=_print_error) else 0


def _predictor(options):
    from_export, from_checkpoint = bool(options.model), bool(options.config_file and options.checkpoint)
    if from_export == from_checkpoint or (from_export and (options.config_file or options.checkpoint)):
        raise UserError("predict: say where the model is: --model DIR, or --config_file FILE with --checkpoint PATH")
    if from_export and options.override:
        raise UserError("predict: --override changes a config; an exported model (--model) has its own built in")
    from deeplab2_kmax.serving import Predictor

    if from_export:
        return Predictor.from_saved_model(options.model, options.dataset)
    from deeplab2_kmax.config import load_config

    return Predictor.from_checkpoint(load_config(options.config_file, options.override), options.checkpoint)


def _export(options, _) -> None:
    from deeplab2_kmax.config import load_config
    from deeplab2_kmax.serving import export

    config = load_config(options.config_file, options.override)
    print(f"exported to {export(config, options.checkpoint, options.output)}")


def _convert(options, rest: list[str]) -> None:
    if options.data is None:
        if not {"-h", "--help"} & set(rest):
            options.parser.error(f"which data set? one of {', '.join(_CONVERTERS)}")
        options.parser.print_help()
        return
    # Converters are programs of their own, with DeepLab2's flags.
    module, _ = _CONVERTERS[options.data]
    sys.argv = [f"deeplab2-kmax convert {options.data}", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _check_dataset(options, _) -> int:
    by_files = bool(options.dataset and options.file_pattern)
    if bool(options.config_file) == by_files or (options.config_file and (options.dataset or options.file_pattern)):
        raise UserError("check-dataset: which? --config_file FILE, or --dataset NAME with --file_pattern PATTERN")
    from deeplab2_kmax.cli import check_dataset as command
    from deeplab2_kmax.dataset_check import Limits

    if by_files:
        limits = Limits(options.max_thing_id, options.num_mask_slots)
        reports = command.check_files(options.dataset, options.file_pattern, limits)
    else:
        reports = command.check_config_file(options.config_file, options.override)
    return command.tell(reports, options.html, _print)


def _convert_checkpoint(options, _) -> None:
    from deeplab2_kmax.checkpoint_conversion import convert_checkpoint
    from deeplab2_kmax.config import load_config

    done = convert_checkpoint(load_config(options.config_file, options.override), options.source, options.output)
    print(f"{done.converted} tensors of {options.source} converted, {len(done.ignored)} that are no weights left out")
    print(f"checkpoint: {done.checkpoint}\nits config: {done.config}")


def _visualize_clusters(options, _) -> int:
    from deeplab2_kmax.cli.visualize import draw_files
    from deeplab2_kmax.config import load_config
    from deeplab2_kmax.serving import ClusterViewer

    config = load_config(options.config_file, options.override)
    viewer = ClusterViewer.from_checkpoint(config, options.checkpoint)
    layers = options.layers.split(",") if options.layers is not None else None
    return 1 if draw_files(viewer, options.images, options.output, layers, _print, _print_error) else 0


def _config(options, _) -> None:
    from deeplab2_kmax.cli.config_listing import config_listing, difference_listing

    if bool(options.file) == bool(options.config_file):
        raise UserError("config: which one? deeplab2-kmax config FILE (or --config_file FILE)")
    file = options.file or options.config_file
    if options.diff:
        _print(difference_listing(options.diff, file, options.override))
    else:
        _print(config_listing(file, options.override))


def _doctor(options, _) -> int:
    from deeplab2_kmax.cli.doctor import diagnose

    report, well = diagnose()
    print(report)
    return 0 if well else 1


def _print(text: str) -> None:
    print(text, flush=True)


def _print_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
