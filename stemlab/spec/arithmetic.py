"""What the expressions of relations can do with values: bounded arithmetic, comparisons, and functions of lists."""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

from ..errors import short

_MOST_BITS = 1024
"""No number is larger: a relation is between sizes, and a slip such as 9 ** 9 ** 9 must not keep the machine busy."""


class Unworkable(Exception):
    """An expression that has no value: what it names is missing, or its values do not go together."""


def is_number(value: Any) -> bool:
    """Tell whether a value is a number; a flag is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any, of: str) -> int | float:
    """Return a value that must be a number; `of` says what needs it."""
    if not is_number(value):
        raise Unworkable(f"{of} needs a number, got {short(value)}")
    return value  # type: ignore[no-any-return]


def _numbers(name: str, value: Any) -> list[Any]:
    items = _list(name, value)
    for item in items:
        if not is_number(item):
            raise Unworkable(f"{name} needs a list of numbers, got {short(value)}")
    return items


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unworkable(f"{name} needs a list, got {short(value)}")
    return value


def _some(name: str, items: list[Any]) -> list[Any]:
    if not items:
        raise Unworkable(f"{name} needs a list that is not empty")
    return items


def _flags(name: str, value: Any) -> list[bool]:
    items = _list(name, value)
    if not all(isinstance(item, bool) for item in items):
        raise Unworkable(f"{name} needs a list of true and false, got {short(value)}")
    return items


def _power(left: int | float, right: int | float) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MOST_BITS:
        raise Unworkable("a number is too large")
    return left**right


OPERATORS: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", _power),
}
"""Arithmetic between two numbers."""

COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda item, items: item in items),
    ast.NotIn: ("not in", lambda item, items: item not in items),
}
"""Comparisons: of any two values for equality, of numbers by size, of an item with those of a list."""


def calculate(kind: type[ast.operator], left: Any, right: Any) -> int | float:
    """Return the result of an operator; Unworkable where it has none, or a very large one."""
    sign, function = OPERATORS[kind]
    return _bounded(sign, lambda: function(number(left, sign), number(right, sign)))


def compare(kind: type[ast.cmpop], left: Any, right: Any) -> bool:
    """Return whether a comparison of two values holds; Unworkable where they cannot be compared."""
    sign, function = COMPARISONS[kind]
    if kind in (ast.In, ast.NotIn):
        _list(sign, right)
    elif kind not in (ast.Eq, ast.NotEq):
        number(left, sign)
        number(right, sign)
    return bool(function(left, right))


def _bounded(name: str, work: Callable[[], Any]) -> int | float:
    try:
        result = work()
    except ZeroDivisionError:
        raise Unworkable(f"{name} divides by zero") from None
    except OverflowError:
        raise Unworkable("a number is too large") from None
    if isinstance(result, complex) or not math.isfinite(result if isinstance(result, float) else 0):
        raise Unworkable(f"the result of {name} is no real number")
    if isinstance(result, int) and result.bit_length() > _MOST_BITS:
        raise Unworkable("a number is too large")
    return result  # type: ignore[no-any-return]


def _product(items: list[Any]) -> int | float:
    result: int | float = 1
    for item in items:
        result = calculate(ast.Mult, result, item)
    return result


def _steps(name: str, holds: Callable[[Any, Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        items = _numbers(name, value)
        return all(holds(a, b) for a, b in itertools.pairwise(items))

    return check


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "prod": lambda value: _product(_numbers("prod", value)),
    "sum": lambda value: _bounded("sum", lambda: sum(_numbers("sum", value))),
    "min": lambda value: min(_some("min", _numbers("min", value))),
    "max": lambda value: max(_some("max", _numbers("max", value))),
    "len": lambda value: len(_list("len", value)),
    "abs": lambda value: abs(number(value, "abs")),
    "all": lambda value: all(_flags("all", value)),
    "any": lambda value: any(_flags("any", value)),
    "increasing": _steps("increasing", operator.le),
    "decreasing": _steps("decreasing", operator.ge),
    "first": lambda value: _some("first", _list("first", value))[0],
    "last": lambda value: _some("last", _list("last", value))[-1],
}
"""Functions of one value. `increasing` and `decreasing` allow equal neighbours, as those of pandas do."""

SEVERAL = ("min", "max")
"""Functions that also take their numbers one by one: min(a, b)."""


def show(value: Any) -> str:
    """Return a value as a message shows it: 16, 0.05, [8, 16], 'relu'."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        text = ", ".join(map(show, value))
        return f"[{text}]" if len(text) <= 60 else f"[{text[:57]}..."
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else short(value)
