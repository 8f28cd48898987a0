"""Command-line flags from a frozen dataclass: names, types, defaults, and the fields' own docstrings as help."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Any


def add_flags(
    group: argparse._ArgumentGroup,
    kind: type,
    names: Iterable[str],
    defaults: Mapping[str, Any],
) -> None:
    """Add one flag for each of the fields `names` of the dataclass `kind`.

    A flag that is not given leaves no attribute behind. A Literal becomes choices, a bool --x and --no-x.

    Args:
        defaults: name of a variant -> an instance of `kind`; the help shows the first's default, and others where they differ.

    Raises:
        TypeError: a field is of a type that no flag can be made of.
    """
    docs, types = field_docs(kind), typing.get_type_hints(kind)
    for name in names:
        default = _defaults(name, defaults)
        text = docs[name] + (f" Default: {default}." if default else "")
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        choices = _choices(types[name])
        if types[name] is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif choices:
            options["choices"] = choices
        elif types[name] in (int, float):
            options |= {"type": types[name], "metavar": "N" if types[name] is int else "X"}
        elif types[name] == str | None:
            options["metavar"] = name.upper()
        else:
            raise TypeError(f"no flag can be made of {kind.__name__}.{name}: {types[name]}")
        group.add_argument("--" + name.replace("_", "-"), **options)


def field_docs(kind: type) -> dict[str, str]:
    """Field -> the string below it in the source of a dataclass, on one line; fields without one are left out."""
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            docs[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]
    return docs


def given(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The fields of the dataclass `kind` that the command line gives."""
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(kind) if hasattr(args, f.name)}


def _defaults(name: str, defaults: Mapping[str, Any]) -> str:
    (_, first), *others = defaults.items()
    usual = getattr(first, name)
    unusual = [f"{getattr(c, name)} for {v}" for v, c in others if getattr(c, name) != usual]
    return ", ".join([_shown(usual), *unusual])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choices(kind: Any) -> list[str]:
    """The values of a Literal, or of those inside a union."""
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    return [choice for part in typing.get_args(kind) for choice in _choices(part)]
