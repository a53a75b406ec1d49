"""Writes deeplab2_configs.json.gz, the values of DeepLab2's kMaX and MaX configs: make_deeplab2_configs.py FOLDER

FOLDER is the folder `configs` of google-research/deeplab2. One dictionary an experiment, with its path as the key; only
what a file sets is in it.
"""

import gzip
import json
import pathlib
import sys

from google.protobuf import json_format, text_format

from deeplab2_kmax.protos import config_pb2


def values(path: pathlib.Path) -> dict:
    """What the config at `path` sets, by DeepLab2's field names."""
    config = text_format.Parse(path.read_text(), config_pb2.ExperimentOptions())
    return json_format.MessageToDict(config, preserving_proto_field_name=True)


def main(folder: pathlib.Path) -> None:
    """Collects every config with a max_deeplab model below `folder`."""
    paths = sorted(path for path in folder.rglob("*.textproto") if "max_deeplab {" in path.read_text())
    experiments = {str(path.relative_to(folder).with_suffix("")): values(path) for path in paths}
    target = pathlib.Path(__file__).with_name("deeplab2_configs.json.gz")
    # No time stamp and no name inside, so that the same values give the same bytes.
    with open(target, "wb") as file, gzip.GzipFile("", "wb", mtime=0, fileobj=file) as zipped:
        zipped.write(json.dumps(experiments, sort_keys=True).encode())
    print(f"{target}: {len(experiments)} experiments")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
