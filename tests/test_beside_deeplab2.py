"""The benchmarks take DeepLab2's path in one way: its package, or the folder that holds it."""

import pathlib
import re
import sys

import pytest

from benchmarks.beside_deeplab2 import import_deeplab2

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Each test imports a package `deeplab2` of its own."""

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] == "deeplab2"]:
            del sys.modules[name]

    forget()
    yield
    forget()


def _make(folder: pathlib.Path, compiled: bool = True) -> pathlib.Path:
    folder.mkdir()
    (folder / "config.proto").touch()
    if compiled:
        (folder / "config_pb2.py").write_text("FOUND = __file__")
    return folder


@pytest.mark.parametrize("given", ["deeplab2", ".", "deeplab2/"])
def test_the_package_and_its_parent_will_do(tmp_path, given):
    package = _make(tmp_path / "deeplab2")
    before = list(sys.path)
    import_deeplab2(f"{tmp_path}/{given}")
    assert pathlib.Path(sys.modules["deeplab2.config_pb2"].FOUND) == package / "config_pb2.py"
    assert sys.path == before


def test_what_is_expected_is_said(tmp_path):
    expected = "--deeplab2_path: expected DeepLab2's folder deeplab2/ or the one that holds it, got "
    with pytest.raises(SystemExit, match=re.escape(f"{expected}{tmp_path}, where there is no config.proto")):
        import_deeplab2(str(tmp_path))
    with pytest.raises(SystemExit, match=re.escape(f"{expected}{tmp_path / 'nowhere'}, where")):
        import_deeplab2(str(tmp_path / "nowhere"))
    renamed = _make(tmp_path / "deeplab2-main")
    with pytest.raises(SystemExit, match=re.escape(f"{expected}{renamed}: DeepLab2 under another name; rename it")):
        import_deeplab2(str(renamed))


@pytest.mark.parametrize("given", ["deeplab2", "."])
def test_protos_that_are_not_compiled(tmp_path, given):
    _make(tmp_path / "deeplab2", compiled=False)
    with pytest.raises(SystemExit, match=re.escape(f"compile its protos first: (cd {tmp_path} && protoc")):
        import_deeplab2(str(tmp_path / given))


def test_all_benchmarks_take_it_that_way():
    users = []
    for path in (ROOT / "benchmarks").glob("*.py"):
        source = path.read_text()
        # In code; docstrings name the flag, too.
        if re.search(r"^\s*(from|import) deeplab2[. ]", source, re.MULTILINE) and path.stem != "beside_deeplab2":
            users.append(path.stem)
            assert (
                "add_deeplab2_path(parser" in source
                and "import_deeplab2(arguments.deeplab2_path)" in source
                or ("import_deeplab2(path)" in source)
            ), path
            assert '"--deeplab2_path"' not in source
    assert len(users) == 7
