"""Checks that run inside the tf.data graph, and how their messages are read back."""

from __future__ import annotations

import re

import tensorflow as tf

_LONGEST_REASON = 400


def require(condition: tf.Tensor, *parts: str | tf.Tensor) -> tf.Operation:
    """Fails the record with InvalidArgumentError unless `condition` holds.

    Args:
        condition: boolean scalar.
        parts: words and small tensors that make up the reason; of a tensor, up to five values are shown.

    Returns:
        The assertion. Make it a control dependency of the steps that would fail less clearly without it.
    """
    return tf.debugging.Assert(condition, list(parts), summarize=5)


def message_of(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """TensorFlow's message, also where it could not become a Python string: then the UnicodeDecodeError holds it."""
    if isinstance(error, UnicodeDecodeError):
        return error.object.decode(errors="replace")
    return error.message


def reason(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """What went wrong in one line: the parts given to `require`, or TensorFlow's message without node names."""
    text = message_of(error).split("<stack traces unavailable>")[-1]
    # [[{{node ...}}]], [Op:Name] and what follows it, {{function_node ...}}.
    text = re.sub(r"\s*\[\[.*?\]\]|\s*\[Op:[^\]]*\].*|\{\{.*?\}\}\s*", "", text, flags=re.DOTALL)
    ours = re.search(r"assertion failed: \[(.*)\]", text, flags=re.DOTALL)
    if ours:
        # The parts stand in brackets of their own.
        text = ours.group(1).replace("] [", " ")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    # TensorFlow may quote a whole record.
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " ..."
