"""Makes pytorch_port.py importable from the tests beside it."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent))
