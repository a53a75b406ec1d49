"""The layout that docs/architecture.md describes, held by the code itself."""

import ast
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "deeplab2_kmax"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.endswith("_pb2.py"))


def test_imports_run_downward_and_never_in_a_circle():
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda path: path.name)
def test_each_folder_says_what_lives_in_it(folder):
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert len(docstring) > 60, f"{folder}/__init__.py: say what lives here, what does not, and where to start reading"


def writes(tree: ast.AST) -> list[int]:
    """The lines that open a file for writing without deeplab2_kmax/files.py."""
    found = []
    in_memory = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "io.BytesIO()"
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        # np.savez into memory writes no file.
        if node.args and isinstance(node.args[0], ast.Name) and node.args[0].id in in_memory:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        modes = [value.value for value in arguments if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        opens = name in ("open", "GFile") and any(mode and set(mode) <= set("wax+bt") for mode in modes)
        if opens or name in ("write_text", "write_bytes", "NamedTemporaryFile", "mkstemp", "savez", "savez_compressed"):
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            if not (isinstance(owner, ast.Name) and owner.id == "files"):
                found.append(node.lineno)
    return found


# What is not a result that somebody reads: a lock and its holder's name; /dev/null.
MAY_WRITE = {"files.py", "folder_lock.py", "training/distribution/multi_worker.py"}


def test_only_one_module_opens_files_for_writing():
    found = {}
    for module in MODULES:
        name = module.relative_to(PACKAGE).as_posix()
        if name not in MAY_WRITE and (lines := writes(ast.parse(module.read_text()))):
            found[name] = lines
    assert not found, "write through deeplab2_kmax.files, which is atomic and knows gs://"


def test_the_check_of_writes_sees_each_way_to_write():
    ways = ('open(p, "w")', 'open(p, mode="ab")', 'tf.io.gfile.GFile(p, "w")', "path.write_text(t)", "np.savez(p, a=1)")
    assert [len(writes(ast.parse(way))) for way in ways] == [1] * len(ways)
    assert not writes(ast.parse('open(p)\nopen(p, "rb")\nfiles.write_text(p, t)\ntf.io.gfile.GFile(p, "rb")'))
    assert not writes(ast.parse("packed = io.BytesIO()\nnp.savez(packed, a=1)"))


def test_the_root_holds_programs_and_sources_only():
    programs = {
        path.relative_to(ROOT).as_posix()
        for folder in ("trainer", "evaluation")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert programs >= {"trainer/train.py", "trainer/export_model.py", "evaluation/evaluate.py"}
    assert not [path for path in programs if path.endswith("__init__.py")], "trainer/ and evaluation/ are no packages"
    environments = {path.parent for path in ROOT.glob("*/pyvenv.cfg")}
    links = [path for path in ROOT.rglob("*") if path.is_symlink()]
    assert not [path for path in links if not environments.intersection([path, *path.parents])]


def test_the_picture_shows_the_imports_as_they_are():
    pytest.importorskip("grimp")
    drawn = runpy.run_path(str(ROOT / "docs" / "draw_architecture.py"))["svg"]()
    assert (ROOT / "docs" / "architecture.svg").read_text() == drawn, "run python docs/draw_architecture.py"


# Paths of other repositories or of the reader's own, and patterns.
NOT_OURS = (
    "runs/",
    "data/",
    "my/",
    "evaluations",
    "${",
    "*",
    "<",
    "...",
    "/data",
    "export/",
    "evaluation/ap",
    "evaluation/pq",
    "evaluation/boundary/",
    "evaluation/calibration/",
    "evaluation/iou",
)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_the_files_that_the_docs_name_are_there(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:deeplab2_kmax|tests|benchmarks|trainer|evaluation|configs|protos|docs)/[\w./-]*)", text)
    named += [str((ROOT / page).parent.relative_to(ROOT) / link) for link in re.findall(r"\]\(([\w./-]+)[)#]", text)]
    missing = [
        path
        for path in named
        if not ((ROOT / path).exists() or (PACKAGE / path).exists()) and not any(mark in path for mark in NOT_OURS)
    ]
    assert not missing
