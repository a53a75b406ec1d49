"""Lets the tests of this folder share `pipeline_records`; pytest's importlib mode leaves test folders off the path."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent))
