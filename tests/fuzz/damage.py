"""Damage to files as Hypothesis draws it: a list of edits, so that a failing input shrinks to few and simple ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st

# Of tests that take milliseconds for an input, and of those that take seconds.
INPUTS, SLOW_INPUTS = (int(os.environ.get("FUZZ_INPUTS", usual)) for usual in ("200", "20"))
# Values that mean something to many formats, among them lengths and counts beyond all measure.
_BYTES = (b"", b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0" * 64, b"..", b"/", b"\n", b"\xc3\x28")
_NUMBERS = ("-1", "0", "1e999", "nan", "9" * 400)
_WORDS = (*_NUMBERS, "", "true", "null", '"', "'", "{", "}", "[", "]" * 50, "../..", "\0", "\ufeff")

_places = st.floats(0, 1, exclude_max=True)
_byte_edits = st.one_of(
    st.tuples(st.just("cut"), _places, st.just(b"")),
    st.tuples(st.just("put"), _places, st.one_of(st.sampled_from(_BYTES), st.binary(min_size=1, max_size=4))),
    st.tuples(st.just("insert"), _places, st.sampled_from(_BYTES)),
    st.tuples(st.just("drop"), _places, st.binary(max_size=16)),
    st.tuples(st.just("repeat"), _places, st.binary(max_size=16)),
)
byte_damage = st.lists(_byte_edits, min_size=1, max_size=4)
_KINDS = ("cut", "put", "insert", "drop", "repeat", "repeat line", "drop line")
_word_edits = st.tuples(st.sampled_from(_KINDS), _places, st.sampled_from(_WORDS))
text_damage = st.lists(_word_edits, min_size=1, max_size=4)


def damaged_bytes(content: bytes, edits) -> bytes:
    """The content after the edits, each at its place as a share of the length."""
    for kind, share, value in edits:
        at = int(share * len(content))
        before, after = content[:at], content[at:]
        content = {
            "cut": before,
            "put": before + value + after[len(value) :],
            "insert": before + value + after,
            "drop": before + after[len(value) :],
            "repeat": before + after[: len(value)] + after,
        }[kind]
    return content


def damaged_text(text: str, edits) -> str:
    """The text after the edits. "put" replaces a word or number, so that what remains is often well formed."""
    for kind, share, value in edits:
        at = int(share * len(text))
        if kind.endswith("line"):
            lines = text.splitlines(keepends=True) or [""]
            line = int(share * len(lines))
            times = 2 if kind == "repeat line" else 0
            text = "".join([*lines[:line], *lines[line : line + 1] * times, *lines[line + 1 :]])
            continue
        end = at
        while end < len(text) and (text[end].isalnum() or text[end] in "._-+"):
            end += 1
        text = {
            "cut": text[:at],
            "put": text[:at] + value + text[end:],
            "insert": text[:at] + value + text[at:],
            "drop": text[:at] + text[end + (end == at) :],
            "repeat": text[:end] + text[at:end] + text[end:],
        }[kind]
    return text


def fuzzed(test, inputs=INPUTS):
    """Runs a test with so many inputs, the same in every run."""
    configured = settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        derandomize="FUZZ_SEED" not in os.environ,
        # A failure is reported as it is found, and shrunk; explaining it takes a tracer that is slow with TensorFlow.
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(test)
    return seed(int(os.environ["FUZZ_SEED"]))(configured) if "FUZZ_SEED" in os.environ else configured


def slowly_fuzzed(test):
    """`fuzzed` for what takes seconds for an input."""
    return fuzzed(test, SLOW_INPUTS)
