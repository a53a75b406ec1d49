"""Both lines of dependencies: Keras is Keras 2, whatever was imported before, or an error says what to do."""

import json
import os
import subprocess
import sys

import pytest
from google.protobuf import descriptor_pb2

from deeplab2_kmax import dependency_lines
from deeplab2_kmax.errors import UserError

# On the first line Keras is Keras 2, and nothing can go wrong.
KERAS_3 = dependency_lines._keras_3_is_installed()

# What a program may do around its `import deeplab2_kmax as dk`, each in a process of its own. TensorFlow itself is
# imported before: that alone decides nothing, because TensorFlow chooses its Keras when it is first used.
FINE = {
    "tensorflow": "import deeplab2_kmax as dk",
    "keras itself": "import keras; import deeplab2_kmax as dk",
    "no variable": "os.environ['TF_USE_LEGACY_KERAS'] = ''; import deeplab2_kmax as dk",
    "variable says true": "os.environ['TF_USE_LEGACY_KERAS'] = 'True'; tf.keras.layers; import deeplab2_kmax as dk",
}
REFUSED = {
    "tf.keras used before": "tf.keras.layers; import deeplab2_kmax as dk",
    "tensorflow.keras imported before": "from tensorflow.keras import layers; import deeplab2_kmax as dk",
    "tensorflow.keras imported later": "import deeplab2_kmax as dk; import tensorflow.keras; dk.load_config",
}
PROGRAM = """
import json, os, sys
import tensorflow as tf

for name, code in json.loads(sys.argv[1]).items():
    sys.stdout.flush()
    if os.fork():
        os.wait()
        continue
    outcome = ""
    try:
        exec(code)
        assert not hasattr(tf.keras, "ops"), "tf.keras is Keras 3"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps([name, outcome]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps({**FINE, **REFUSED})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


@pytest.mark.parametrize("name", FINE)
def test_keras_2_is_taken(name, outcomes):
    assert outcomes[name] == ""


@pytest.mark.parametrize("name", REFUSED)
def test_keras_3_is_refused(name, outcomes):
    if not KERAS_3:
        assert outcomes[name] == ""
        return
    assert outcomes[name].startswith("UserError: ")
    for part in ("needs Keras 2", "tf.keras is Keras 3", "Import deeplab2_kmax first", "TF_USE_LEGACY_KERAS=1"):
        assert part in outcomes[name]


def test_a_variable_that_asks_for_keras_3(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    if not KERAS_3:
        dependency_lines.use_keras_2()
        return
    with pytest.raises(UserError, match="TF_USE_LEGACY_KERAS=0 TensorFlow takes Keras 3; unset"):
        dependency_lines.use_keras_2()


def test_the_variable_is_set_where_it_says_something(monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    dependency_lines.use_keras_2()
    assert os.environ.get("TF_USE_LEGACY_KERAS") == ("1" if KERAS_3 else None)


def test_repeated_fields_are_known():
    fields = descriptor_pb2.DescriptorProto.DESCRIPTOR.fields_by_name
    assert dependency_lines.is_repeated(fields["field"]) and dependency_lines.is_repeated(fields["reserved_name"])
    assert not dependency_lines.is_repeated(fields["name"]) and not dependency_lines.is_repeated(fields["options"])
