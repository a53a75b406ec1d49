"""Annotation files with one or two mistakes in them, to see that each is imported right or refused by name."""

from __future__ import annotations

import copy
import random
import re
import xml.etree.ElementTree as ElementTree

WRONG = (
    None,
    True,
    "",
    "x",
    "0",
    "7",
    -1,
    0,
    1,
    2,
    0.5,
    1e30,
    10**400,
    2**31,
    2**63,
    float("nan"),
    float("inf"),
    [],
    {},
    [None],
    [[]],
    ["a", "b"],
    [1, 2, 3],
    {"a": 1},
)


def mutated(document, seed: int):
    """A copy of a JSON document in which one or two values are dropped, replaced, repeated, swapped or damaged.

    Returns:
        (the copy, what was done to it).
    """
    draw = random.Random(seed)
    result = copy.deepcopy(document)
    done = [_mutate(result, draw) for _ in range(draw.choice((1, 1, 2)))]
    return result, "; ".join(done)


def damaged_text(text: str, seed: int) -> tuple[str, str]:
    """A copy of a text file that is cut off, or has a character or a line dropped, repeated or replaced."""
    draw = random.Random(seed)
    place = draw.randrange(len(text))
    kind = draw.choice(("cut", "drop", "replace", "repeat", "drop line", "repeat line"))
    lines = text.splitlines(keepends=True)
    line = draw.randrange(len(lines))
    made = {
        "cut": text[:place],
        "drop": text[:place] + text[place + 1 :],
        "replace": text[:place] + draw.choice('09-.,:"<>[]{}ax \n\0\u00e4') + text[place + 1 :],
        "repeat": text[:place] + text[place] + text[place:],
        "drop line": "".join(lines[:line] + lines[line + 1 :]),
        "repeat line": "".join(lines[: line + 1] + lines[line:]),
    }[kind]
    return made, f"{kind} at character {place}, line {line + 1}"


def _mutate(document, draw: random.Random) -> str:
    path, owner, key = draw.choice(list(_places(document, "")))
    kind = draw.choice(("drop", "replace", "replace", "nudge", "repeat", "copy"))
    value = owner[key]
    if kind == "drop":
        del owner[key]
    elif kind == "replace":
        owner[key] = copy.deepcopy(draw.choice(WRONG))
    elif kind == "nudge":
        owner[key] = _nudged(value, draw)
    elif kind == "repeat" and isinstance(owner, list):
        owner.insert(key, copy.deepcopy(value))
    else:
        # The value of another field of the same name, as when an id occurs twice.
        others = [o[k] for p, o, k in _places(document, "") if k == key and o is not owner]
        owner[key] = copy.deepcopy(draw.choice(others)) if others else [value]
    return f"{kind} {path}"


def _nudged(value, draw: random.Random):
    """A value of the same type that is a little off."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return draw.choice((-value, value + 1, value * 10, value - 0.5, value * 1e6))
    if isinstance(value, str) and value:
        place = draw.randrange(len(value))
        return draw.choice(
            (value[:place], value[:place] + chr(draw.randrange(33, 127)) + value[place + 1 :], value * 2)
        )
    if isinstance(value, list):
        return value[: draw.randrange(len(value) + 1)]
    return value


def _places(document, path: str):
    """(words, owner, key) of every value in a document. Of long lists of numbers, only some, or they would be all."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for number, (key, value) in enumerate(list(pairs)):
        if isinstance(document, list) and number >= 6 and not isinstance(value, (dict, list)):
            break
        yield f"{path}/{key}", document, key
        if isinstance(value, (dict, list)):
            yield from _places(value, f"{path}/{key}")


def mutated_xml(text: str, seed: int) -> tuple[str, str]:
    """A copy of an XML file with one or two mistakes in its elements, attributes or text, or in its characters."""
    draw = random.Random(seed)
    if draw.random() < 0.15:
        return damaged_text(text, seed)
    root = ElementTree.fromstring(text)
    done = [_mutate_xml(root, draw) for _ in range(draw.choice((1, 1, 2)))]
    return ElementTree.tostring(root, encoding="unicode"), "; ".join(done)


def _mutate_xml(root, draw: random.Random) -> str:
    parents = [(parent, child) for parent in root.iter() for child in parent]
    # Elements with attributes are what an importer reads; the others are a few words about the task.
    parent, child = draw.choice([pair for pair in parents if pair[1].attrib] * 3 + parents)
    kind = draw.choice(("drop", "repeat", "rename", "text", *["attribute"] * 8))
    if kind == "attribute" and child.attrib:
        return f"{child.tag} {_mutate_attribute(child.attrib, parents, draw)}"
    if kind == "drop":
        parent.remove(child)
    elif kind == "repeat":
        parent.append(copy.deepcopy(child))
    elif kind == "rename":
        child.tag = draw.choice([other.tag for _, other in parents] + ["nothing"])
    else:
        child.text = _wrong_text(child.text or "", draw)
    return f"{kind} {child.tag}"


def _mutate_attribute(attributes, parents, draw: random.Random) -> str:
    name = draw.choice(sorted(attributes))
    kind = draw.choice(("drop", "copy", "change", "change"))
    if kind == "drop":
        del attributes[name]
    elif kind == "copy":
        attributes[name] = draw.choice([other.attrib[name] for _, other in parents if name in other.attrib])
    else:
        attributes[name] = _wrong_text(attributes[name], draw)
    return f"{kind} {name}"


def _wrong_text(text: str, draw: random.Random) -> str:
    wrong = [str(value) for value in WRONG if not isinstance(value, (list, dict))]
    numbers = list(re.finditer(r"-?\d+(\.\d+)?", text))
    if draw.random() < 0.4 or not text:
        return draw.choice(wrong)
    if numbers and draw.random() < 0.6:
        # One of the numbers within, such as a coordinate.
        found = draw.choice(numbers)
        number = draw.choice([str(_nudged(float(found.group()), draw)), str(_nudged(1, draw)), *wrong])
        return text[: found.start()] + number + text[found.end() :]
    return str(_nudged(text, draw))
