"""Relations: what a study file demands between fields of a filled document and the costs of its matched model.

A relation is one line such as `prod(model.stem.strides) == 16`. It is read by Python's own parser, and what is read is
walked by the few rules here: nothing is ever executed, and no work is unbounded.
"""

from __future__ import annotations

import ast
import difflib
import functools
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import Field, PlainValidator, WithJsonSchema

from ..errors import nearest, one_of, short
from .arithmetic import COMPARISONS, FUNCTIONS, OPERATORS, SEVERAL, Unworkable, calculate, compare, number, show
from .base import spec_error
from .body import BodySpec
from .data import DataSpec
from .files import Location
from .quantity import Quantity
from .training import TrainSpec

SECTIONS = ("model", "data", "train")
"""What the paths of a relation begin with."""

QUANTITIES = get_args(Quantity)
"""Names that stand for costs of the matched model."""

_LONGEST = 1000
_DEEPEST = 40
_CONSTANTS = {"true": True, "false": False, "null": None}
_HINTS = {
    **{name: f"data.{name}" for name in DataSpec.model_fields},
    **{name: f"train.{name}" for name in TrainSpec.model_fields},
    **{name: f"model.body.{name}" for name in BodySpec.model_fields},
    **{name: f"model.{name}" for name in ("stem", "body", "match")},
    **{name: f"model.stem.{name}" for name in ("channels", "kernels", "strides", "patch", "norm", "act")},
    **{name: name for name in (*SECTIONS, *QUANTITIES)},
}
"""What may have been meant by a name, by its last word."""

Lookup = Callable[[Location], Any]
"""Gives the value of a path, or of a quantity; raises Unworkable where there is none."""


class _Refused(Exception):
    """A text that is no relation."""


@dataclass(frozen=True)
class Relation:
    """A relation, read. `paths` are the fields that it names, `quantities` the costs."""

    text: str
    tree: ast.expr
    paths: tuple[Location, ...]
    quantities: tuple[str, ...]

    def objection(self, lookup: Lookup) -> str | None:
        """Return why the relation does not hold, in a sentence; None where it does."""
        try:
            value = _Reading(lookup).value(self.tree)
            if value is True:
                return None
            if value is not False:
                return f"{self.text} is neither true nor false: its value is {show(value)}"
            return f"{self.text} does not hold: {_Reading(lookup).shown(self.tree)}"
        except Unworkable as error:
            return f"{self.text} cannot be worked out: {error}"


@functools.lru_cache(maxsize=1024)
def read_relation(text: str) -> Relation:
    """Return the relation that a text of a StudySpec states."""
    return _read(text)


def _parse(value: Any) -> str:
    if not isinstance(value, str):
        raise spec_error(f"expected a comparison as text, such as {short(_EXAMPLE)}, got {short(value)}")
    text = re.sub(r"\s*\n\s*", " ", value).strip()
    try:
        _read(text)
    except _Refused as error:
        raise spec_error(str(error)) from None
    return text


_EXAMPLE = "prod(model.stem.strides) == 16"
RelationText = Annotated[
    str,
    PlainValidator(_parse),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST, "examples": [_EXAMPLE]}),
]
Relations = Annotated[tuple[RelationText, ...], Field(min_length=1, max_length=100)]
"""The relations of a study, as they are written."""


def _read(text: str) -> Relation:
    if len(text) > _LONGEST:
        raise _Refused(f"a relation has at most {_LONGEST} characters, this one has {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's parser, about code that is never run
            tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        at = f" at character {error.offset}" if error.offset and error.offset <= len(text) else ""
        raise _Refused(f"{short(text)} is not understood{at}; expected a comparison such as {_EXAMPLE}") from None
    except (ValueError, RecursionError, MemoryError):
        raise _Refused(f"{short(text)} is not understood; expected a comparison such as {_EXAMPLE}") from None
    _check_depth(tree, text)
    paths: dict[Location, None] = {}
    for path in _check(tree, text):
        paths[path] = None
    if isinstance(tree, ast.Constant | ast.List | ast.Tuple | ast.BinOp):
        raise _Refused(f"{short(text)} compares nothing; expected a comparison such as {_EXAMPLE}")
    if not paths:
        raise _Refused(f"{short(text)} names nothing of the study; expected a field such as model.body.dim, or a cost")
    fields = tuple(path for path in paths if path[0] in SECTIONS)
    return Relation(text, tree, fields, tuple(str(path[0]) for path in paths if path[0] not in SECTIONS))


def _check_depth(tree: ast.expr, text: str) -> None:
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise _Refused(f"{short(text)} is nested more than {_DEEPEST} levels deep")


def _check(node: ast.expr, text: str) -> Iterator[Location]:
    """Yield the paths and quantities that an expression names; refuse what is not of the language."""
    if isinstance(node, ast.Constant):
        if not (isinstance(node.value, bool | int | float | str) or node.value is None) or (
            isinstance(node.value, float) and not math.isfinite(node.value)
        ):
            raise _not_allowed(node, text)
        return
    if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        if not (isinstance(node, ast.Name) and node.id in _CONSTANTS):
            yield _path(node, text)
        return
    if isinstance(node, ast.Call):
        _check_call(node, text)
        children = list(node.args)
    elif isinstance(node, ast.List | ast.Tuple):
        children = list(node.elts)
    elif isinstance(node, ast.BoolOp):
        children = list(node.values)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Invert):
        children = [node.operand]
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        children = [node.left, node.right]
    elif isinstance(node, ast.Compare) and all(type(op) in COMPARISONS for op in node.ops):
        children = [node.left, *node.comparators]
    else:
        raise _not_allowed(node, text)
    for child in children:
        yield from _check(child, text)


def _check_call(node: ast.Call, text: str) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    if name is None or node.keywords or any(isinstance(item, ast.Starred) for item in node.args):
        raise _not_allowed(node, text)
    if name not in (*FUNCTIONS, "has"):
        names = (*FUNCTIONS, "has")
        raise _Refused(f"unknown function {short(name)}; expected {one_of(names)}{nearest(name, names)}")
    if len(node.args) != 1 and not (name in SEVERAL and node.args):
        raise _Refused(f"{name} takes one value, got {len(node.args)} in {short(_source(node, text))}")
    if name == "has" and not isinstance(node.args[0], ast.Attribute | ast.Subscript):
        raise _Refused(f"has takes the path of a field, got {short(_source(node.args[0], text))}")


def _path(node: ast.expr, text: str) -> Location:
    """Return the path, or the quantity, that a chain of names and indices stands for."""
    steps: list[str | int] = []
    inner = node
    while not isinstance(inner, ast.Name):
        if isinstance(inner, ast.Attribute):
            steps.append(inner.attr)
            inner = inner.value
        elif isinstance(inner, ast.Subscript):
            steps.append(_index(inner, text))
            inner = inner.value
        else:
            raise _not_allowed(node, text)
    name = inner.id
    if name in QUANTITIES and not steps:
        return (name,)
    if name in SECTIONS and steps:
        return (name, *reversed(steps))
    if name in SECTIONS or name in QUANTITIES:
        what = "a whole section; name a field of it" if name in SECTIONS else "a number, which has no fields"
        raise _Refused(f"{name} is {what}, in {short(_source(node, text))}")
    if name in FUNCTIONS or name == "has":
        raise _Refused(f"{name} is a function: {name}(...)")
    close = difflib.get_close_matches(name, list(_HINTS), n=1)
    meant = f" (did you mean {_HINTS[close[0]]!r}?)" if close else ""
    paths = f"a path in {', '.join(SECTIONS)}, such as model.body.dim"
    raise _Refused(f"unknown name {short(name)}; expected {paths}, or {_COSTS}{meant}")


_COSTS = one_of(QUANTITIES)


def _index(node: ast.Subscript, text: str) -> int:
    index: ast.expr = node.slice
    sign = 1
    if isinstance(index, ast.UnaryOp) and isinstance(index.op, ast.USub):
        sign, index = -1, index.operand
    if not (isinstance(index, ast.Constant) and type(index.value) is int):
        raise _Refused(f"an index is a whole number, got {short(_source(node, text))}")
    return sign * index.value


def _not_allowed(node: ast.expr, text: str) -> _Refused:
    return _Refused(
        f"{short(_source(node, text))} is not allowed; a relation has names, numbers, text, lists, "
        f"+ - * / // % **, comparisons, in, and, or, not, and the functions {', '.join((*FUNCTIONS, 'has'))}"
    )


def _source(node: ast.expr, text: str) -> str:
    return ast.get_source_segment(text, node) or text


class _Reading:
    """The values of a relation's expressions, for one filling."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            return self._named(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(item) for item in node.elts]
        if isinstance(node, ast.BinOp):
            return calculate(type(node.op), self.value(node.left), self.value(node.right))
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            return stop if any(self._flag(item) is stop for item in node.values) else not stop
        assert isinstance(node, ast.Compare)  # nothing else is let through
        left = self.value(node.left)
        for kind, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            if not compare(type(kind), left, right):
                return False
            left = right
        return True

    def shown(self, node: ast.expr) -> str:
        """Return an expression that is false with its values put in, as far as it was worked out."""
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            return self.shown(next(item for item in node.values if not self._flag(item)))
        if isinstance(node, ast.BoolOp):
            return " or ".join(map(self.shown, node.values))
        if isinstance(node, ast.Compare):
            return self._shown_comparison(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id != "has":
            return f"{node.func.id}({', '.join(show(self.value(item)) for item in node.args)})"
        if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Compare):
            return f"not {self._shown_comparison(node.operand)}"
        return ast.unparse(node)

    def _shown_comparison(self, node: ast.Compare) -> str:
        left = self.value(node.left)
        text = show(left)
        for kind, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            text += f" {COMPARISONS[type(kind)][0]} {show(right)}"
            if not compare(type(kind), left, right):
                break
            left = right
        return text

    def _named(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        return self.lookup(_path(node, ""))

    def _call(self, node: ast.Call) -> Any:
        assert isinstance(node.func, ast.Name)
        name = node.func.id
        if name == "has":
            try:
                return self._named(node.args[0]) is not None
            except Unworkable:
                return False
        values = [self.value(item) for item in node.args]
        return FUNCTIONS[name](values if len(values) > 1 else values[0])

    def _unary(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not):
            return not self._flag(node.operand)
        value = number(self.value(node.operand), "-" if isinstance(node.op, ast.USub) else "+")
        return -value if isinstance(node.op, ast.USub) else value

    def _flag(self, node: ast.expr) -> bool:
        value = self.value(node)
        if not isinstance(value, bool):
            raise Unworkable(f"and, or and not need true or false, got {show(value)}")
        return value
