"""Goes through sizes and batches: opens the models, measures them, and reports as soon as figures are known."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import re
import string
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.cli.inference_benchmark import report
from deeplab2_kmax.cli.inference_benchmark.cold_start import cold_start
from deeplab2_kmax.cli.inference_benchmark.machine import MATRIX, describe
from deeplab2_kmax.cli.inference_benchmark.measuring import Row, measure, with_common_limits
from deeplab2_kmax.cli.inference_benchmark.models import BenchmarkedModel, Size, Source, input_size
from deeplab2_kmax.cli.inference_benchmark.report import size_text
from deeplab2_kmax.cli.output_files import make_output_folder, write_result
from deeplab2_kmax.converters.shapes_data.scenes import generate_shapes
from deeplab2_kmax.errors import ConfigError, UserError
from deeplab2_kmax.model.multiply_adds import count_multiply_adds
from deeplab2_kmax.pictures import read_image
from deeplab2_kmax.wording import first_line

# The size of most pictures of COCO.
_DRAWN = (480, 640)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What to measure.

    Attributes:
        sources: models, side by side.
        image: path of a picture file; None: one is drawn.
        sizes: of the network's input; none: that of each export, or of the config.
        batches: numbers of pictures in a call.
        rounds: how often each stage is timed.
        cold_starts: how often each model is started in a process of its own, for each size and batch.
        csv: file for the figures.
        plot: file for a PNG.
        matrix_size: height and width of the matrices whose product counts as the machine's limit.
    """

    sources: Sequence[Source]
    image: str | None = None
    sizes: Sequence[Size] = ()
    batches: Sequence[int] = (1,)
    rounds: int = 10
    cold_starts: int = 1
    csv: str | None = None
    plot: str | None = None
    matrix_size: int = MATRIX


def benchmark(sweep: Sweep, tell: Callable[[str], object]) -> list[Row]:
    """Measures everything and tells it.

    Args:
        sweep: what to measure.
        tell: called with each part of the report, a text of one or more lines within 80 columns.

    Returns:
        All figures.

    Raises:
        UserError: a model, the picture or the sizes are wrong, or results cannot be written.
    """
    if len(sweep.sources) > len(string.ascii_uppercase):
        raise UserError(f"expected at most {len(string.ascii_uppercase)} models, got {len(sweep.sources)}")
    plan = _plan(sweep)
    for path in filter(None, (sweep.csv, sweep.plot)):
        make_output_folder(files.parent(path) or ".")
    rows: list[Row] = []
    with _picture_file(sweep.image) as picture:
        height, width = read_image(picture).shape[:2]
        facts = {**describe(), "picture": f"{sweep.image or 'drawn'}, {width} x {height} pixels"}
        tell(report.header(facts, _labelled(sweep.sources)))
        tell(report.speed_titles(sweep.rounds))
        for size, sources in plan:
            models = {label: source.open() for label, source in sources.items()}
            multiply_adds = {label: _multiply_adds(model) for label, model in models.items()}
            for batch in sweep.batches:
                new = _rows(sweep, picture, size, batch, sources, models, multiply_adds)
                rows = with_common_limits([*rows, *new])
                for row in new:
                    tell(report.speed_line(row))
                if sweep.csv:
                    # What has been measured stays if the rest is stopped.
                    write_result(sweep.csv, report.as_csv(rows, facts).encode())
            # Otherwise the models of all sizes would be in memory together.
            del models
            tf.keras.backend.clear_session()
            gc.collect()
    tell(report.start_table(rows))
    if sweep.plot:
        write_result(sweep.plot, report.as_plot(rows, facts))
    return rows


def parse_sizes(text: str) -> list[Size]:
    """Reads "641,1025x2049" as sizes of a network's input, height before width.

    Raises:
        UserError: it is something else.
    """
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?\s*", part)
        if match is None:
            raise UserError(f"--sizes: expected sizes in pixels such as 641,1281 or 1025x2049, got {text!r}")
        sizes.append((int(match[1]), int(match[2] or match[1])))
    return list(dict.fromkeys(sizes))


def parse_batches(text: str) -> list[int]:
    """Reads "1,4" as numbers of pictures.

    Raises:
        UserError: it is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d{0,4}", part) for part in parts):
        raise UserError(f"--batches: expected numbers of pictures such as 1,4, got {text!r}")
    return list(dict.fromkeys(map(int, parts)))


def _labelled(sources: Sequence[Source]) -> list[tuple[str, Source]]:
    return list(zip(string.ascii_uppercase, sources))


def _plan(sweep: Sweep) -> list[tuple[Size, dict[str, Source]]]:
    """The sizes, and for each the models that are measured at it, by their letters."""
    plan: dict[Size, dict[str, Source]] = {size: {} for size in sweep.sizes}
    for label, source in _labelled(sweep.sources):
        own = input_size(source.config())
        if source.model is not None:
            if sweep.sizes and own not in sweep.sizes:
                raise UserError(
                    f"{source.model}: expected one of --sizes={','.join(map(size_text, sweep.sizes))} to be the"
                    f" size that this export is made for, {size_text(own)}; leave --sizes out, or export the"
                    " checkpoint for another size by --override=input_size=HEIGHT,WIDTH"
                )
            plan.setdefault(own, {})[label] = source
            continue
        for height, width in sweep.sizes or [own]:
            resized = dataclasses.replace(source, overrides=(*source.overrides, f"input_size={height},{width}"))
            try:
                resized.config()  # Wrong sizes are told before anything is measured.
            except ConfigError as error:
                raise UserError(f"--sizes={size_text((height, width))}: {first_line(error)}") from error
            plan.setdefault((height, width), {})[label] = resized if sweep.sizes else source
    if missing := [size_text(size) for size, sources in plan.items() if not sources]:
        raise UserError(
            f"--sizes: expected sizes that exports are made for, got {', '.join(missing)}, for which there is none;"
            " measure a config by --config_file, or export it for that size by --override=input_size=HEIGHT,WIDTH"
        )
    return list(plan.items())


@contextlib.contextmanager
def _picture_file(image: str | None) -> Iterator[str]:
    """Yields the path of a picture file: `image`, or a drawn one, which is deleted in the end."""
    if image is not None:
        yield image
        return
    height, width = _DRAWN
    pixels = generate_shapes(0, 0, max(_DRAWN))[0][:height, :width]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "drawn.jpg")
        files.write_bytes(path, tf.io.encode_jpeg(np.ascontiguousarray(pixels)).numpy())
        yield path


def _multiply_adds(model: BenchmarkedModel) -> int | None:
    return None if model.config is None else count_multiply_adds(model.config)


def _rows(
    sweep: Sweep,
    picture: str,
    size: Size,
    batch: int,
    sources: dict[str, Source],
    models: dict[str, BenchmarkedModel],
    multiply_adds: dict[str, int | None],
) -> list[Row]:
    """Measures models at one size and batch."""
    starts = {
        label: tuple(cold_start(source, picture, batch) for _ in range(sweep.cold_starts))
        for label, source in sources.items()
    }
    times, limits = measure(list(models.values()), picture, batch, sweep.rounds, sweep.matrix_size)
    return [
        Row(
            label=label,
            name=model.name,
            size=size,
            batch=batch,
            precision=model.precision,
            times=of_model,
            limit=limits[model.precision],
            times_of_first=times[0],
            multiply_adds=multiply_adds[label],
            cold_starts=starts[label],
        )
        for (label, model), of_model in zip(models.items(), times)
    ]
