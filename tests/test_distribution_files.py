"""What `pip install` brings: a wheel and a source distribution that work outside the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ("deeplab2_kmax", "configs", "protos", "trainer", "evaluation")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CITATION.cff", "BUILD", "CHANGELOG.md")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> pathlib.Path:
    """A folder with the source distribution and the wheel that is built from it."""
    pytest.importorskip("build")
    # A copy, so that setuptools' build/ and *.egg-info of the checkout neither matter nor change.
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", output, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def names_in_wheel(built: pathlib.Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def expected_in_wheel() -> set[str]:
    """The package's own files, and configs/ inside the package."""
    package = {
        path for path in (ROOT / "deeplab2_kmax").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    configs = {f"deeplab2_kmax/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.textproto")}
    return {str(path.relative_to(ROOT)) for path in package} | configs


def test_the_wheel_holds_the_package_and_its_configs_and_nothing_else(built):
    names = {name for name in names_in_wheel(built) if ".dist-info/" not in name}
    assert names == expected_in_wheel()


def test_the_source_distribution_holds_what_a_wheel_is_built_from(built):
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "configs/coco/kmax_r50.textproto",
        "protos/generate.py",
        "trainer/train.py",
        "evaluation/evaluate.py",
    } <= names


def test_the_metadata_is_what_package_indexes_accept(built):
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *built.iterdir()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """(*arguments) -> what the wheel's command prints, called in an empty folder with no checkout in reach."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)

    def run(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment)
        assert done.returncode == 0, done.stderr
        assert not list(elsewhere.iterdir())
        return done.stdout

    assert str(site) in run("-c", "import deeplab2_kmax; print(deeplab2_kmax.__file__)")
    return run


def test_the_wheel_finds_its_configs_by_name(installed):
    text = installed("-m", "deeplab2_kmax", "config", "coco/kmax_r50")
    assert 'experiment_name: "coco_kmax_r50"' in text
    as_in_a_checkout = installed("-m", "deeplab2_kmax", "config", "configs/coco/kmax_r50.textproto")
    assert as_in_a_checkout.splitlines()[1:] == text.splitlines()[1:]


def test_the_wheel_knows_its_version(installed):
    from deeplab2_kmax import __version__

    assert installed("-m", "deeplab2_kmax", "--version").split() == ["deeplab2_kmax", __version__]
    code = "import importlib.metadata as m; print(m.version('deeplab2_kmax'))"
    assert installed("-c", code).strip() == __version__
