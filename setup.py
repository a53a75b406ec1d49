"""pip install . | pip install -e .   (no protoc, PYTHONPATH or compiled op needed). Metadata: pyproject.toml."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies configs/ of the checkout into the package, where an installed copy finds them by name."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib) / "deeplab2_kmax" / "configs"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(pathlib.Path(__file__).parent / "configs", target)


setup(cmdclass={"build_py": BuildWithConfigs})
