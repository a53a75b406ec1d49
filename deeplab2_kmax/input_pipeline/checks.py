"""Checks that run inside the tf.data graph, and how their messages are read back."""

from __future__ import annotations

import re

import tensorflow as tf


def require(condition: tf.Tensor, *parts: str | tf.Tensor) -> tf.Operation:
    """Fails the record with InvalidArgumentError unless `condition` holds.

    Args:
        condition: boolean scalar.
        parts: words and small tensors that make up the reason; a tensor shows up to five of its values.

    Returns:
        The assertion, for use as a control dependency of steps that would fail less clearly.
    """
    return tf.debugging.Assert(condition, list(parts), summarize=5)


def reason(error: tf.errors.OpError) -> str:
    """What went wrong in one line: the parts given to `require`, or TensorFlow's message without node names."""
    text = re.sub(r"\s*\[\[.*?\]\]|\s*\[Op:[^\]]*\].*|\{\{.*?\}\}\s*", "", error.message, flags=re.DOTALL)
    text = text.split("<stack traces unavailable>")[-1].strip()
    ours = re.search(r"assertion failed: \[(.*)\]", text, flags=re.DOTALL)
    if ours:
        text = ours.group(1).replace("] [", " ")
    return " ".join(text.split())
