import pathlib
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def test_the_page_of_all_fields_is_up_to_date():
    pytest.importorskip("grpc_tools")
    page = runpy.run_path(str(ROOT / "docs" / "write_config_fields.py"))["page"]
    assert (ROOT / "docs/config_fields.md").read_text() == page(), "run python docs/write_config_fields.py"
