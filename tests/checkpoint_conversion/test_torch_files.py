"""Reading PyTorch's and detectron2's files: right values, and nothing a file asks for is run."""

import os
import pickle
import uuid
import zipfile

import numpy as np
import pytest

from deeplab2_kmax import files
from deeplab2_kmax.checkpoint_conversion import read_state_dict
from deeplab2_kmax.errors import CheckpointError


@pytest.fixture
def small(golden):
    return golden / "pytorch_small.pth"


def test_tensors_of_every_kind(small):
    arrays = read_state_dict(str(small))
    expected = {
        "0.weight": np.array([[0, 1, 2], [3, 4, 5]], np.float32),
        "0.bias": np.array([0.5, -0.5], np.float32),
        "1.weight": np.ones(2, np.float32),
        "1.bias": np.zeros(2, np.float32),
        "1.running_mean": np.zeros(2, np.float32),
        "1.running_var": np.ones(2, np.float32),
        "1.num_batches_tracked": np.array(1, np.int64),
        "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "slice": np.array([[5, 6], [9, 10]], np.float32),
        "half": np.array([1.5, -2], np.float16),
        "bfloat16": np.array([1.5, -3], np.float32),
        "double": np.array([1], np.float64),
        "bool": np.array([True, False]),
        "parameter": np.array([4], np.float32),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros([0, 3], np.float32),
    }
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        assert arrays[name].dtype == value.dtype, name
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays(tmp_path, protocol):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.array([1, 256], ">i4"),
        "scalar": np.float32(3),
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(
        pickle.dumps({"model": arrays, "__author__": "third_party", "matching_heuristics": True}, protocol)
    )
    read = read_state_dict(str(path))
    assert read.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)


def test_a_bare_state_dict_and_the_prefix_of_data_parallel(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"module.a": np.ones(2), "module.b.c": np.ones(3)}))
    assert read_state_dict(str(path)).keys() == {"a", "b.c"}


class _Attack:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("call", [os.system, eval, np.load, getattr])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, call, packed):
    trace = tmp_path / "trace"
    arguments = {os.system: [f"touch {trace}"], eval: [f"open({str(trace)!r}, 'w')"]}.get(call, ["x", "y"])
    content = pickle.dumps({"model": {"a": np.ones(2), "b": _Attack(call, *arguments)}})
    path = tmp_path / "model.pth"
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"model.pth: refused.*it asks for \w+\.{call.__name__}.*nothing was run"
    ):
        read_state_dict(str(path))
    assert not trace.exists()


def test_a_pickle_cannot_change_the_readers_functions(tmp_path):
    path = tmp_path / "model.pkl"
    # BUILD (b) on a function: its attributes would be set.
    path.write_bytes(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}(X\x0c\x00\x00\x00__defaults__)utb.")
    with pytest.raises(CheckpointError, match="it changes a function"):
        read_state_dict(str(path))


def archive_with_tensor(path, offset, shape, strides, count=4, stored=4):
    """A zip file as of torch.save with one float32 tensor that claims `count` elements of storage."""

    def body(value):
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + body("storage") + b"ctorch\nFloatStorage\n" + b"".join(map(body, ("0", "cpu", count))) + b"tQ"
    tensor = b"(" + storage + body(offset) + body(shape) + body(strides) + b"I00\nNt"
    pickled = b"\x80\x02}" + body("a") + b"ctorch._utils\n_rebuild_tensor_v2\n" + tensor + b"Rs."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", np.arange(stored, dtype="<f4").tobytes())
    return str(path)


def test_the_archives_of_the_next_test_are_read(tmp_path):
    arrays = read_state_dict(archive_with_tensor(tmp_path / "good.pth", 0, (2, 2), (2, 1)))
    np.testing.assert_array_equal(arrays["a"], [[0, 1], [2, 3]])
    for count in (0, 4):
        path = archive_with_tensor(tmp_path / "empty.pth", count, (3, 0), (1, 1), count, stored=count)
        assert read_state_dict(path)["a"].shape == (3, 0)


@pytest.mark.parametrize(
    "view",
    [
        {"offset": 1, "shape": (2, 2), "strides": (2, 1)},
        {"offset": 0, "shape": (3, 2), "strides": (2, 1)},
        {"offset": 0, "shape": (2, 2), "strides": (1000, 1)},
        {"offset": 3, "shape": (2, 2), "strides": (-2, 1)},
        {"offset": -1, "shape": (2,), "strides": (1,)},
        {"offset": 0, "shape": (2,), "strides": (1,), "count": 1000},
        {"offset": 0, "shape": (2,), "strides": (1,), "stored": 3},
        {"offset": 0, "shape": (), "strides": (), "count": 0, "stored": 0},
        {"offset": 0, "shape": (1,), "strides": (1,), "count": 0, "stored": 0},
        {"offset": 5, "shape": (0,), "strides": (1,)},
    ],
)
def test_views_beyond_their_storage_are_refused(tmp_path, view):
    with pytest.raises(CheckpointError, match="bad.pth: refused.*storage 0"):
        read_state_dict(archive_with_tensor(tmp_path / "bad.pth", **view))


def test_truncated_files(tmp_path, small):
    pickled = pickle.dumps({"model": {"a": np.ones(1000)}})
    for name, content in (("short.pth", small.read_bytes()), ("short.pkl", pickled)):
        for keep in (1, 5, len(content) // 2, len(content) - 30):
            path = tmp_path / name
            path.write_bytes(content[:keep])
            with pytest.raises(CheckpointError, match=name):
                read_state_dict(str(path))


def test_flipped_bytes_are_found(tmp_path, small):
    content = bytearray(small.read_bytes())
    position = content.index(np.arange(12, dtype="<f4").tobytes())
    content[position] ^= 0xFF
    path = tmp_path / "flipped.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="flipped.pth: refused"):
        read_state_dict(str(path))


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("text.pth", b"hello", "expected a checkpoint of PyTorch"),
        ("list.pkl", pickle.dumps([1]), "got a list"),
        ("text_inside.pkl", pickle.dumps({"model": {"a": "b"}}), "'a': a str"),
        ("empty.pkl", pickle.dumps({}), "nothing in it"),
        ("objects.pkl", pickle.dumps({"a": np.array([None])}), "expected an array of numbers"),
    ],
)
def test_files_of_other_kinds(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}.*{words}"):
        read_state_dict(str(path))


def test_a_zip_of_something_else_an_old_format_and_no_file(tmp_path, golden):
    path = tmp_path / "other.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(CheckpointError, match="no data.pkl"):
        read_state_dict(str(path))
    with pytest.raises(CheckpointError, match="PyTorch 1.5 or earlier"):
        read_state_dict(str(golden / "pytorch_small_legacy.pth"))
    with pytest.raises(CheckpointError, match="cannot read.*nowhere.pth"):
        read_state_dict(str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("name", ["model.pth", "model.pkl"])
def test_files_on_remote_storage(small, name):
    arrays = {"a": np.arange(3.0)}
    content = small.read_bytes() if name.endswith("pth") else pickle.dumps(arrays)
    path = f"ram://pytorch/{uuid.uuid4().hex}/{name}"
    files.write_bytes(path, content)
    expected = read_state_dict(str(small)) if name.endswith("pth") else arrays
    read = read_state_dict(path)
    assert read.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(read[key], value)
    with pytest.raises(CheckpointError, match="cannot read 'ram://pytorch/none.pth'"):
        read_state_dict("ram://pytorch/none.pth")


def test_an_array_without_a_type_is_refused(tmp_path):
    class Untyped:
        def __reduce__(self):
            # numpy.ndarray, but its state never arrives.
            return np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b")

    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": {"a": Untyped()}}))
    with pytest.raises(CheckpointError, match="model.pkl: refused.*an array without a type"):
        read_state_dict(str(tmp_path / "model.pkl"))
