"""Generates Python modules from the *.proto files in this folder: `python protos/generate.py`.

It needs grpcio-tools<1.63. The modules and their type stubs (*.pyi) go to deeplab2_kmax/protos. They are checked in, so
that users need no protoc; tests/protos/test_generated.py fails if they are out of date.
"""

import pathlib
import shutil
import sys
import tempfile

from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
IMPORT_PATH = pathlib.Path("deeplab2_kmax/protos")


def generate(output: pathlib.Path) -> None:
    """Writes <name>_pb2.py and <name>_pb2.pyi into the folder `output` for every .proto of this folder."""
    # protoc takes the name under which a file is registered, and the module path of imports, from the path it finds the
    # file at: so the sources are laid out as the modules will be.
    with tempfile.TemporaryDirectory() as root:
        sources = pathlib.Path(root) / IMPORT_PATH
        sources.mkdir(parents=True)
        for proto in HERE.glob("*.proto"):
            shutil.copy(proto, sources)
        names = sorted(str(IMPORT_PATH / path.name) for path in sources.glob("*.proto"))
        if protoc.main(["protoc", f"-I{root}", f"--python_out={root}", f"--pyi_out={root}", *names]) != 0:
            sys.exit("protoc failed")
        for generated in sources.glob("*_pb2.py*"):
            shutil.copy(generated, output)


if __name__ == "__main__":
    generate(HERE.parent / IMPORT_PATH)
