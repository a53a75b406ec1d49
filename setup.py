"""pip install . | pip install -e .   (no protoc, PYTHONPATH or compiled op needed)"""

import pathlib

from setuptools import find_packages, setup

# Folders that lie beside deeplab2_kmax/ in a checkout and inside it once installed.
BESIDE = ("protos", "evaluation", "trainer", "trainer/optimizers")

packages = find_packages(include=["deeplab2_kmax", "deeplab2_kmax.*"])
package_dir = {"deeplab2_kmax": "deeplab2_kmax"}
for folder in BESIDE:
    package = f"deeplab2_kmax.{folder.replace('/', '.')}"
    packages.append(package)
    package_dir[package] = folder

setup(
    name="deeplab2_kmax",
    version="0.1.0",
    description="kMaX-DeepLab, CMT-DeepLab and MaX-DeepLab in TensorFlow, compatible with DeepLab2",
    long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.12",
    packages=packages,
    package_dir=package_dir,
    package_data={"deeplab2_kmax.datasets": ["*.json"], "deeplab2_kmax.protos": ["*.proto"]},
    install_requires=[
        "tensorflow==2.15.1",
        "tf-models-official==2.15.0",
        "tensorflow-addons==0.23.0",
        "numpy>=1.23,<2",
        "protobuf>=4.21,<5",
        "absl-py",
        "h5py",
        "matplotlib",
        "Pillow",
        "pycocotools",
        "scipy",
        "tqdm",
    ],
    extras_require={
        # Not in dev: it takes Pillow, pyarrow and python-dateutil back to older versions.
        "beam": ["apache-beam>=2.65,<2.78"],
        "dev": ["grpcio-tools>=1.62,<1.63", "pytest", "ruff==0.17.6"],
    },
    entry_points={"console_scripts": ["deeplab2-kmax=deeplab2_kmax.trainer.command:main"]},
)
