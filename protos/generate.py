"""Generates Python modules from the *.proto files in this folder: `python protos/generate.py`.

It needs grpcio-tools<1.63. The modules and their type stubs (*.pyi) go to deeplab2_kmax/protos. They are checked in, so
that users need no protoc; tests/protos/test_generated.py fails if they are out of date.
"""

import importlib.resources
import pathlib
import shutil
import sys
import tempfile

from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
IMPORT_PATH = pathlib.Path("deeplab2_kmax/protos")


def run_protoc(root: pathlib.Path, *options: str) -> None:
    """Runs protoc on all .proto files of this folder, copied to where it finds them below the folder `root`."""
    # protoc takes the name under which a file is registered, and the module path of imports, from the path it finds the
    # file at: so the sources are laid out as the modules will be.
    sources = root / IMPORT_PATH
    sources.mkdir(parents=True)
    for proto in HERE.glob("*.proto"):
        shutil.copy(proto, sources)
    names = sorted(str(IMPORT_PATH / path.name) for path in sources.glob("*.proto"))
    # protobuf's own descriptor.proto, for the option `range`.
    included = [f"-I{root}", f"-I{importlib.resources.files('grpc_tools') / '_proto'}"]
    if protoc.main(["protoc", *included, *options, *names]) != 0:
        sys.exit("protoc failed")


def generate(output: pathlib.Path) -> None:
    """Writes <name>_pb2.py and <name>_pb2.pyi into the folder `output` for every .proto of this folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        run_protoc(root, f"--python_out={root}", f"--pyi_out={root}")
        for generated in (root / IMPORT_PATH).glob("*_pb2.py*"):
            shutil.copy(generated, output)


if __name__ == "__main__":
    generate(HERE.parent / IMPORT_PATH)
