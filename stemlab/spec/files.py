"""Specs in and out of YAML and JSON files, with errors that point at file:line.

YAML is read by its safe loader under the number rules of YAML 1.2 (so `1e-3` is a number), and a key written
twice is an error.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ..errors import InfeasibleError, SpecError, StemlabError, nearest, one_of, short
from .base import Spec
from .layers import ExpandedIndex

S = TypeVar("S", bound=Spec)
Location = tuple[str | int, ...]
_MOST_NODES = 200_000
_MOST_LEVELS = 100


@dataclass
class Document:
    """A parsed file: its data, and for each path in it where it was written ("file:line")."""

    data: Any
    source: str
    places: dict[Location, str] = field(default_factory=dict)

    def place(self, path: Location) -> str:
        """Return where the value at a path, or its nearest written ancestor, stands."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.source

    def error(self, path: Location, message: str) -> SpecError:
        """Return an error that names the place, the path and what is wrong."""
        return SpecError(self.located(path, message))

    def infeasible(self, path: Location, message: str) -> InfeasibleError:
        """Return the like for what is well-formed but cannot be had."""
        return InfeasibleError(self.located(path, message), path)

    def located(self, path: Location, message: str, place: str | None = None) -> str:
        """Return a message behind the place (that of the path unless given) and the path that it is about."""
        where = f" {show_path(path)}:" if path else ""
        return f"{place or self.place(path)}:{where} {message}"


def show_path(path: Location) -> str:
    """Return a path as people write it: model.stem.channels[0]."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def read(path: str | os.PathLike[str]) -> Document:
    """Read a YAML or JSON file."""
    source = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = Path(path).parent
        beside = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        raise SpecError(f"{source}: no such file{nearest(Path(path).name, beside)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{source}: cannot be read: {error}") from None
    return parse(text, source)


def parse(text: str, source: str, empty: bool = False) -> Document:
    """Parse YAML or, where `source` ends in .json, JSON. Nothing at all is an error unless `empty` is allowed."""
    is_json = source.endswith(".json")
    data = None
    if is_json:
        data = _parse_json(text, source)
        text = text.replace("\t", " ")  # JSON may be indented by tabs; YAML, read below for the lines, may not
    document = Document(None, source)
    try:
        _check_depth(text, document)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            value = _Reader(loader, document).value(node, ()) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecError(f"{source}:{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        if not is_json:
            raise SpecError(f"{source}: not valid YAML: {error}") from None
        value = None  # JSON allows characters that YAML does not: go on without the lines
    document.data = data if is_json else value
    if document.data is None and not empty:
        raise SpecError(f"{source}:1: the file is empty")
    return document


def _parse_json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise SpecError(f"{source}:1: nested more than {_MOST_LEVELS} levels deep") from None
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise SpecError(f"{source}:{line}: not valid JSON: {getattr(error, 'msg', error)}") from None


def _check_depth(text: str, document: Document) -> None:
    """Refuse what is nested too deeply before libyaml's composer recurses into it, which can end the process."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > _MOST_LEVELS:
                line = event.start_mark.line + 1  # type: ignore[union-attr]
                raise SpecError(f"{document.source}:{line}: nested more than {_MOST_LEVELS} levels deep")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader with YAML 1.2's numbers and booleans."""


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes what either version of YAML would take for a number."""


_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {
    first: list(found) for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):  # fmt: skip
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), [c if c != "\0" else "" for c in _first]
        )


class _Reader:
    """Builds plain data from YAML nodes and notes the line of every value."""

    def __init__(self, loader: Any, document: Document) -> None:
        self.loader, self.document = loader, document
        self.nodes = 0
        self.open: set[int] = set()

    def value(self, node: yaml.Node, path: Location) -> Any:
        self.nodes += 1
        self.document.places.setdefault(path, self._place(node))
        if self.nodes > _MOST_NODES:
            raise self.document.error((), f"more than {_MOST_NODES} values")
        if id(node) in self.open:
            raise self.document.error(path, "an alias that contains itself")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise SpecError(self.document.located(path, "a key must be a plain name", self._place(key_node)))
            here = (*path, key)
            self.document.places[here] = self._place(key_node)
            if key in result:
                raise self.document.error(here, f"the key {short(key)} is written twice")
            result[key] = self.value(value_node, here)
        return result

    def _scalar(self, node: yaml.Node, path: Location) -> Any:
        try:
            if node.tag == "tag:yaml.org,2002:int":
                return int(node.value)  # PyYAML's own would read 010 as 8, by YAML 1.1
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            raise self.document.error(path, f"cannot be read as {node.tag}: {short(node.value)}") from None

    def _place(self, node: yaml.Node) -> str:
        return f"{self.document.source}:{node.start_mark.line + 1}"


def override(document: Document, assignment: str) -> Document:
    """Return a copy with one `path=value` (as after --set) put in; the value is read as YAML."""
    path_text, equals, value_text = assignment.partition("=")
    source = f"--set {short(assignment)[1:-1]}"
    if not equals or not re.fullmatch(r"[^.\[\]\s]+(\.[^.\[\]\s]+|\[\d+\])*", path_text):
        raise SpecError(f"{source}: expected path=value, such as search.trials=20 or search.seeds[0]=1")
    steps = re.findall(r"[^.\[\]]+|\[\d+\]", path_text)
    path: Location = tuple(int(s[1:-1]) if s.startswith("[") else s for s in steps)
    value = parse(value_text, source, empty=True).data
    changed = Document(copy.deepcopy(document.data), document.source, dict(document.places))
    target = changed.data
    for depth, key in enumerate(path[:-1], start=1):
        if isinstance(target, dict) and isinstance(key, str):
            if key not in target:
                changed.places[path[:depth]] = source
            target = target.setdefault(key, {})
        else:
            target = _item(target, key, path[:depth], source)
    if not (isinstance(target, dict) and isinstance(path[-1], str)):
        _item(target, path[-1], path, source)
    target[path[-1]] = value
    for old in [p for p in changed.places if p[: len(path)] == path]:
        del changed.places[old]
    changed.places[path] = source
    return changed


def _item(target: Any, key: str | int, path: Location, source: str) -> Any:
    if isinstance(target, list) and isinstance(key, int) and key < len(target):
        return target[key]
    raise SpecError(f"{source}: there is no {show_path(path)} in the file")


def validate(kind: type[S], document: Document, path: Location = ()) -> S:
    """Turn the document (or what stands at `path` in it) into a spec; SpecError with file:line if it is none."""
    data = document.data
    for depth, key in enumerate(path):
        if not isinstance(data, dict):
            raise document.error(path[:depth], f"expected a mapping, got {short(data)}")
        if key not in data:
            raise document.error(path[:depth], f"missing field {key!r}")
        data = data[key]
    return validate_data(kind, data, document, path)


def validate_data(kind: type[S], data: Any, document: Document, path: Location = ()) -> S:
    """Turn data that stands at `path` of the document into a spec."""
    if not isinstance(data, (dict, str)):
        raise document.error(path, f"expected a mapping, got {short(data)}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise explain(error, data, document, path) from None


def explain(error: ValidationError, data: Any, document: Document, path: Location = ()) -> SpecError:
    """Return the SpecError that says all that is wrong, each with its place, path, value and expectation."""
    lines: list[str] = []
    for found, message, _ in problems(error, data):
        line = str(document.error((*path, *found), message))
        if line not in lines:
            lines.append(line)
    more = f"\n... and {len(lines) - 5} more" if len(lines) > 5 else ""
    return SpecError("\n".join(lines[:5]) + more)


def problems(error: ValidationError, data: Any) -> Iterator[tuple[Location, str, bool]]:
    """Yield (path in the data, message, whether values merely do not go together) for each problem found."""
    items = error.errors(include_url=False)
    for item in items:
        # A list whose items are wrong is also "too short" for pydantic.
        inside = (other["loc"][: len(item["loc"])] == item["loc"] for other in items if other is not item)
        if item["type"] == "too_short" and any(inside):
            continue
        context = item.get("ctx", {})
        path = _walk(data, (*item["loc"], *context.get("at", ())))
        yield path, _message(item, context), item["type"] == "relation"


def _walk(data: Any, location: Location) -> Location:
    """Keep of pydantic's location what exists in the data: union tags and defaults are not written anywhere."""
    path: list[str | int] = []
    for key in location:
        if isinstance(key, ExpandedIndex) and isinstance(data, list):
            key = key.written(data)
        is_item = isinstance(data, (list, tuple)) and isinstance(key, int) and key < len(data)
        if is_item or (isinstance(data, dict) and key in data):
            data = data[key]
            path.append(key)
    return tuple(path)


def _message(item: Any, context: dict[str, Any]) -> str:
    kind, value = item["type"], item["input"]
    if kind in ("value", "relation"):
        return str(context["message"])
    if kind == "missing":
        return f"missing field {item['loc'][-1]!r}"
    if kind == "union_tag_not_found":
        return "missing field 'op', the kind of layer"
    if kind in ("literal_error", "union_tag_invalid"):
        expected = context.get("expected") or context["expected_tags"]
        names = re.findall(r"'([^']+)'", expected)
        given = context.get("tag", value)
        return f"unknown value {given!r}; expected {one_of(names)}{nearest(given, names)}"
    if kind == "too_short":
        return f"must have at least {context['min_length']} value, got {short(value)}"
    text = _PLAIN.get(kind) or item["msg"].replace("Input should", "must")
    return f"{text}, got {short(value)}"


# Pydantic's words for the commonest mistakes, in the words of people who write YAML.
_PLAIN = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "finite_number": "must be a finite number",
}


def dump_yaml(data: Any) -> str:
    """Return data as YAML, keys in their own order."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, default_flow_style=None, allow_unicode=True)
    return text


def dump_json(data: Any) -> str:
    """Return data as indented JSON with a final newline; NaN and infinity are refused."""
    return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. StemlabError where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new, empty file beside `path`; once it is written and nothing failed, it takes the place of `path`.

    StemlabError where it cannot be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield temporary
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise StemlabError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)
