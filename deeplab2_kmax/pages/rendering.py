"""Fills the templates of pages."""

from __future__ import annotations

import functools
import os
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """A page of a template.

    Args:
        template: its name without ending, such as "report".
        **values: what the template names; all text is escaped, and a name without a value is an error.

    Returns:
        The page, HTML.
    """
    page = _environment().get_template(f"{template}.html.j2").render(**values) + "\n"
    # Names of files and of images may hold bytes that are no UTF-8, and halves of characters.
    return page.encode("utf-8", "backslashreplace").decode()


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.join(os.path.dirname(__file__), "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["color"] = _color
    return environment


def _percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in percent; a dash where there is none."""
    return "–" if fraction is None or fraction != fraction else f"{100 * fraction:.{digits}f}"


def _color(rgb: tuple[int, int, int]) -> str:
    """RGB 0..255 as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)
