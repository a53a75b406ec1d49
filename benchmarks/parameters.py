"""Counts the parameters of networks.

python benchmarks/parameters.py configs/coco/kmax_*.textproto
python benchmarks/parameters.py configs/coco/kmax_r50.textproto --override model_options.backbone.name=kmax_moat0
"""

from __future__ import annotations

import argparse
import pathlib

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model.parameter_counts import count_parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        print(
            f"| {name}, {config.model_options.backbone.name} | "
            + " | ".join(f"{figure / 1e6:.2f} M" for figure in figures)
            + " |"
        )


if __name__ == "__main__":
    main()
