"""Counts the parameters of networks and prints a table, in millions.

    python benchmarks/parameters.py coco/kmax_r50 coco/kmax_convnext_tiny
    python benchmarks/parameters.py coco/kmax_r50 --override model_options.backbone.name=kmax_moat0

A config is a file or the name of one of ours. The networks are built, but nothing is computed.
"""

from __future__ import annotations

import pathlib

from beside_deeplab2 import argument_parser

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model.parameter_counts import count_parameters


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("configs", nargs="+", help="experiment configs")
    parser.add_argument("--override", action="append", default=[], help="field.sub_field=value")
    arguments = parser.parse_args()
    print("| config | all variables | trainable | encoder | semantic branch | without it | used in inference |")
    print("|---|---|---|---|---|---|---|")
    for path in arguments.configs:
        config = load_config(path, arguments.override)
        counts = count_parameters(config)
        figures = (
            counts.total,
            counts.trainable,
            counts.encoder,
            counts.semantic_branch,
            counts.panoptic,
            counts.inference,
        )
        name = "/".join(pathlib.Path(path).with_suffix("").parts[-2:])
        cells = [f"{name}, {config.model_options.backbone.name}", *(f"{figure / 1e6:.2f} M" for figure in figures)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
