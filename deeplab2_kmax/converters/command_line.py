"""What the command lines of the converters share: flags for the output, and how flags become arguments."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.converters.importing.painting import OVERLAPS
from deeplab2_kmax.programs import run_program


def define_shared_flags(treat_crowd_as_ignore: bool | None = True, num_shards: int | None = None) -> None:
    """Defines the flags that all converters have; the --help of the running converter lists them with its own flags.

    Args:
        treat_crowd_as_ignore: the default of this flag, which DeepLab2's converters have too; None: labels without
            crowds, for which it is not defined.
        num_shards: the default of this flag; None: the number of images decides.
    """
    by_images = "" if num_shards else "; by default one for 128 images"
    defined: list[flags.FlagHolder[Any]] = [
        flags.DEFINE_string("output_dir", None, "Local folder for the TFRecord shards.", required=True),
        flags.DEFINE_integer("num_shards", num_shards, f"Number of shards of a split{by_images}.", lower_bound=1),
        flags.DEFINE_integer(
            "num_processes",
            None,
            "Number of processes that write shards; by default as many as the number of images is worth.",
            lower_bound=1,
        ),
        flags.DEFINE_string(
            "beam",
            None,
            "Write the shards with Apache Beam; the value holds the options of its pipeline, such as"
            " --beam='--runner=DirectRunner'.",
        ),
    ]
    if treat_crowd_as_ignore is not None:
        meaning = "Label crowd regions as void; otherwise they get their thing class and instance id 0."
        defined.append(flags.DEFINE_boolean("treat_crowd_as_ignore", treat_crowd_as_ignore, meaning))
    _list_among_own(defined)


def define_split_flags(condition: str = "") -> None:
    """Defines the flags of converters whose data are not split already; see `reading.images.split_by_fraction`.

    Args:
        condition: when they count, put at the end of their descriptions.
    """
    defined = [
        flags.DEFINE_string("split", "train", f"What the names of the shards begin with{condition}."),
        flags.DEFINE_float(
            "val_fraction", 0.0, f"Share of the pictures that goes to the split val, evenly spread{condition}."
        ),
    ]
    _list_among_own(defined)


def define_import_flags(treat_crowd_as_ignore: bool = True) -> None:
    """Defines the flags that all importers of labelling tools' exports have, those of all converters among them."""
    defined = [
        flags.DEFINE_string(
            "dataset", None, "Descriptor file of the classes; if missing, written from the export.", required=True
        ),
        flags.DEFINE_list(
            "stuff_classes", [], "Classes that are stuff, where the export does not say; others: things."
        ),
        flags.DEFINE_list("void_classes", [], "Classes whose regions are labelled as void."),
        flags.DEFINE_string("background_class", None, "Stuff class of pixels without a region; by default void."),
        flags.DEFINE_enum("overlaps", None, OVERLAPS, "Which region is on top; by default as the tool shows it."),
    ]
    _list_among_own(defined)
    define_shared_flags(treat_crowd_as_ignore)


def _list_among_own(defined: Sequence[flags.FlagHolder[Any]]) -> None:
    """Has --help list flags that are defined here among those of the running converter."""
    for holder in defined:
        # absl lists the flags of the main module, which it calls by the name of the program, but these belong to this
        # module.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[holder.name])


def flag_values(function: Callable[..., object]) -> dict[str, Any]:
    """The values of those flags that are parameters of `function`, or fields of the parameters of importers."""
    groups = {"rules": ImportRules, "shards": Shards}
    names = inspect.signature(function).parameters
    return {name: _group_of_flags(groups[name]) if name in groups else flags.FLAGS[name].value for name in names}


def _group_of_flags(group: Callable[..., Any]) -> Any:
    values = {name: flags.FLAGS[name].value for name in inspect.signature(group).parameters}
    # "sky,road," is a list of two names.
    lists = {name: [each for each in value if each] for name, value in values.items() if isinstance(value, list)}
    return group(**{**values, **lists})


def convert_by_flags(convert: Callable[..., object], description: str | None) -> None:
    """Runs a converter as a program, see `run_program`.

    Args:
        convert: called with the flags that have the names of its parameters.
        description: what --help begins with, usually the docstring of the converter's module.
    """

    def work() -> None:
        convert(**flag_values(convert))

    run_program(work, description or "")
