"""TF_CONFIG as it comes, and as it goes wrong."""

import json

import pytest

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.training.distribution.cluster import Cluster, cluster_of_environment

TWO = {"worker": ["host0:2222", "host1:2222"]}


def read(text):
    return cluster_of_environment({"TF_CONFIG": text if isinstance(text, str) else json.dumps(text)})


@pytest.mark.parametrize("alone", ["", " ", "{}", {"cluster": {}}, {"task": {"type": "worker", "index": 0}}])
def test_without_a_cluster_a_process_works_alone(alone):
    assert read(alone) is None
    assert cluster_of_environment({}) is None


def test_a_cluster_of_one_is_none():
    assert read({"cluster": {"worker": ["host0:1"]}, "task": {"type": "worker", "index": 0}}) is None


def test_the_first_worker_is_the_chief_where_no_other_is_named():
    first = read({"cluster": TWO, "task": {"type": "worker", "index": "0"}})
    assert first == Cluster(("host0:2222", "host1:2222"), 0)
    assert first.is_chief
    assert not read({"cluster": TWO, "task": {"type": "worker", "index": 1}}).is_chief


def test_a_chief_comes_before_the_workers():
    cluster = {**TWO, "chief": ["boss:1"], "evaluator": ["other:1"]}
    assert read({"cluster": cluster, "task": {"type": "chief", "index": 0}}).is_chief
    worker = read({"cluster": cluster, "task": {"type": "worker", "index": 0}})
    assert worker == Cluster(("boss:1", "host0:2222", "host1:2222"), 1, has_chief_job=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "is no JSON object"),
        ({"cluster": ["a:1"]}, '"cluster" is no object of lists'),
        ({"cluster": {"worker": "a:1"}}, '"cluster" is no object of lists'),
        ({"cluster": {"worker": ["host0", "host1:1"]}}, '"host:port"'),
        ({"cluster": {**TWO, "ps": ["p:1"]}}, 'other jobs than "chief" and "worker": got worker, ps'),
        ({"cluster": {"chief": ["a:1", "b:1"]}}, "more than one chief"),
        ({"cluster": TWO}, '"task" does not say'),
        ({"cluster": TWO, "task": {"type": "worker"}}, '"task" does not say'),
        ({"cluster": TWO, "task": {"type": "chief", "index": 0}}, "none of the jobs"),
        ({"cluster": TWO, "task": {"type": "worker", "index": 2}}, r"outside 0 \.\. 1 of 'worker'"),
        ({"cluster": TWO, "task": {"type": "worker", "index": -1}}, r"outside 0 \.\. 1"),
        ({"cluster": TWO, "task": {"type": "evaluator", "index": 0}}, "--mode=continuous_eval"),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}, "an address twice"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(ConfigError, match=rf"environment variable TF_CONFIG .*{message}"):
        read(text)
