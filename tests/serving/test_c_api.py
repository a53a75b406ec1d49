"""A program in C gets, by TensorFlow's C API, the maps that Python gets, to the bit."""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

PROGRAM = pathlib.Path(__file__).parent / "predict.c"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled program, with the libraries that TensorFlow's package for Python brings."""
    package = pathlib.Path(tf.__file__).parent
    compiler = shutil.which("cc") or shutil.which("gcc")
    libraries = sorted(package.glob("libtensorflow_*.so.2"))
    if compiler is None or len(libraries) < 2:
        pytest.skip("needs a C compiler, and TensorFlow's libraries as its Linux packages have them")
    path = tmp_path_factory.mktemp("program") / "predict"
    command = [compiler, str(PROGRAM), "-o", str(path), f"-I{tf.sysconfig.get_include()}", *map(str, libraries)]
    done = subprocess.run([*command, f"-Wl,-rpath,{package}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


def test_a_program_in_c_gets_the_same_map(program, exported, picture):
    expected = tf.saved_model.load(exported).signatures["serving_default"](tf.constant(picture[None]))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], exported).signature_def["serving_default"]
    asked = signature.inputs["input_tensor"].name.split(":")[0]
    words = [program, exported, asked, *signature.outputs["panoptic_pred"].name.split(":"), *picture.shape[:2]]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(list(map(str, words)), input=picture.tobytes(), capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    found = np.frombuffer(done.stdout, np.int32).reshape(picture.shape[:2])
    np.testing.assert_array_equal(found, expected["panoptic_pred"][0])
    assert len(np.unique(found)) > 2
