"""Which of several processes this one is, read from the environment variable TF_CONFIG.

TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from deeplab2_kmax.errors import ConfigError

ENVIRONMENT_VARIABLE = "TF_CONFIG"
_CHIEF, _WORKER = "chief", "worker"
_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
        addresses: "host:port" of each process, the chief's first.
        number: the place of this process among them; 0 is the chief.
        has_chief_job: whether the chief has a job of its own, so that the first task of the job `worker` is number 1.
    """

    addresses: tuple[str, ...]
    number: int
    has_chief_job: bool = False

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that reports and writes for all of them."""
        return self.number == 0


def cluster_of_environment(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """The processes that TF_CONFIG names; None if it is not set or names no other process than this one.

    Args:
        environment: environment variables.

    Raises:
        ConfigError: TF_CONFIG is set and makes no sense.
    """
    text = environment.get(ENVIRONMENT_VARIABLE, "").strip()
    if not text:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not JSON ({error})", text) from error
    if not isinstance(values, dict):
        raise _wrong("is no JSON object", text)
    if not values.get("cluster"):
        return None
    jobs = _jobs(values["cluster"])
    number = _number(values.get("task"), jobs)
    # TensorFlow, too, makes the first worker the chief where the cluster names none.
    addresses = tuple(address for job in (_CHIEF, _WORKER) for address in jobs.get(job, ()))
    if len(set(addresses)) < len(addresses):
        raise _wrong("names an address twice", ", ".join(addresses))
    return Cluster(addresses, number, bool(jobs.get(_CHIEF))) if len(addresses) > 1 else None


def _jobs(cluster: Any) -> dict[str, list[str]]:
    if not isinstance(cluster, dict) or not all(_is_address_list(addresses) for addresses in cluster.values()):
        raise _wrong('"cluster" is no object of lists of "host:port"', json.dumps(cluster))
    # An evaluator takes no part in training and is started without TF_CONFIG; other tools list it here.
    if set(cluster) - {_CHIEF, _WORKER, "evaluator"}:
        raise _wrong('"cluster" has other jobs than "chief" and "worker"', ", ".join(cluster))
    if len(cluster.get(_CHIEF, [])) > 1:
        raise _wrong('"cluster" has more than one chief', ", ".join(cluster[_CHIEF]))
    return {job: list(addresses) for job, addresses in cluster.items()}


def _is_address_list(addresses: Any) -> bool:
    return isinstance(addresses, list) and all(
        isinstance(address, str) and address.rpartition(":")[0] and address.rpartition(":")[2].isdecimal()
        for address in addresses
    )


def _number(task: Any, jobs: Mapping[str, list[str]]) -> int:
    """The place of this process among all addresses, the chief's first."""
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise _wrong('"task" does not say the "type" and "index" of this process', json.dumps(task))
    kind, index = task["type"], task["index"]
    if kind == "evaluator":
        raise _wrong("makes this process an evaluator; start it without, with --mode=continuous_eval", json.dumps(task))
    if kind not in (_CHIEF, _WORKER) or not jobs.get(kind):
        raise _wrong(f'"task" has a type that is none of the jobs of "cluster", {", ".join(jobs)}', json.dumps(task))
    # Launchers write the index as a number or as text.
    if not str(index).isdecimal() or int(index) >= len(jobs[kind]):
        raise _wrong(f'"task" has an index outside 0 .. {len(jobs[kind]) - 1} of {kind!r}', json.dumps(task))
    return int(index) + (len(jobs.get(_CHIEF, ())) if kind == _WORKER else 0)


def _wrong(what: str, got: str) -> ConfigError:
    return ConfigError(f"environment variable TF_CONFIG {what}: got {got}; expected e.g. {_EXAMPLE}")
