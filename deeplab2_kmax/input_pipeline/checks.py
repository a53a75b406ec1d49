"""Checks that run inside the tf.data graph, and how their messages are read back."""

from __future__ import annotations

import re

import tensorflow as tf

_LONGEST_REASON = 400


def require(condition: tf.Tensor, *parts: str | tf.Tensor) -> tf.Operation:
    """Fails the record with InvalidArgumentError unless `condition` holds.

    Args:
        condition: boolean scalar.
        parts: words and small tensors that make up the reason; a tensor shows up to five of its values.

    Returns:
        The assertion, for use as a control dependency of steps that would fail less clearly.
    """
    return tf.debugging.Assert(condition, list(parts), summarize=5)


def message_of(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """TensorFlow's own words; a UnicodeDecodeError holds those that it could not turn into a string."""
    if isinstance(error, UnicodeDecodeError):
        return error.object.decode(errors="replace")
    return error.message


def reason(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """What went wrong in one line: the parts given to `require`, or TensorFlow's message without node names."""
    text = message_of(error).split("<stack traces unavailable>")[-1]
    text = re.sub(r"\s*\[\[.*?\]\]|\s*\[Op:[^\]]*\].*|\{\{.*?\}\}\s*", "", text, flags=re.DOTALL)
    ours = re.search(r"assertion failed: \[(.*)\]", text, flags=re.DOTALL)
    if ours:
        text = ours.group(1).replace("] [", " ")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    # A message may quote a whole record.
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " ..."
