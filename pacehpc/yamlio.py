"""One safe YAML reader for input and potential files, by the rules of YAML 1.2.

Differences from PyYAML's own loader: `5e-7` and `1e3` are floats; only true and false are booleans, so that the
elements `No` and `Y` stay strings; a key that stands twice in a mapping is an error; list keys (`[0, 1]:` in .yace
files) become tuples; no tag can create anything but plain data.
"""

from __future__ import annotations

import math
import os
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from pacehpc.errors import PacehpcError

MAX_DEPTH = 100
MAX_ALIAS_NODES = 100_000  # values that aliases (`*name`) may repeat in one file
MAX_INTEGER_DIGITS = 1000

_Parser = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml where PyYAML was built with it: ten times faster

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_OCTAL = re.compile(r"0o[0-7]+")
_NUMBER_START = frozenset("+-.0123456789")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_TAG = "tag:yaml.org,2002:"
_TAG_TYPES: dict[str, tuple[type, ...]] = {
    _TAG + "int": (int,),
    _TAG + "float": (float, int),
    _TAG + "bool": (bool,),
    _TAG + "null": (type(None),),
}


def load_yaml(path: str | os.PathLike[str], lines: dict[tuple, int] | None = None) -> Any:
    """Read a YAML file; see `loads_yaml`.


    Raises:
        PacehpcError: the file cannot be opened, is not UTF-8 text, or is not valid YAML.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise PacehpcError(
            f"{path}: cannot be read ({error.strerror}); check the name and the working directory"
        ) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PacehpcError(
            f"{path}, line {line}: not UTF-8 text; is this a YAML file? Save it as plain UTF-8 text"
        ) from None
    return loads_yaml(text, str(path), lines)


def loads_yaml(text: str, name: str = "<text>", lines: dict[tuple, int] | None = None) -> Any:
    """Plain data (dict, list, str, int, float, bool, None) of one YAML document; None for an empty one.

    `name` stands for the file in messages. `lines`, if given, is filled with the line number (from 1) of every mapping
    key and list item by its path, such as ("fit", "loss", "kappa"). Values repeated by aliases are independent copies.

    Raises:
        PacehpcError: invalid YAML, with file and line.
    """
    try:
        parser = _Parser(text)
        try:
            return _Builder(name, lines).run(parser)
        finally:
            parser.dispose()
    except yaml.YAMLError as error:
        raise PacehpcError(_syntax_message(error, name)) from None


def dumps_yaml(data: Any) -> str:
    """YAML text of plain data that `loads_yaml` reads as the same data; short mappings and lists stand on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer with quotes around every text that YAML 1.2 would take for something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar(_TAG + "str", text, style=None if _plain(text) == text else "'")


_Dumper.add_representer(str, _Dumper.represent_text)


class _Frame:
    """A list or mapping under construction."""

    __slots__ = ("anchor", "is_map", "key", "key_lines", "line", "merges", "nodes", "tag", "value")

    def __init__(self, is_map: bool, event: yaml.CollectionStartEvent) -> None:
        self.is_map = is_map
        self.value: Any = {} if is_map else []
        self.key: Any = _NO_KEY
        self.key_lines: dict[Any, int] = {}
        self.merges: list[dict] = []
        self.nodes = 1
        self.anchor = event.anchor
        self.tag = event.tag
        self.line = _line(event)


_NO_KEY = object()  # a mapping that waits for its next key
_MERGE = object()  # the key `<<`


class _Builder:
    """Plain data from a parser's events, with an explicit stack, so that nothing recurses over the user's nesting."""

    def __init__(self, name: str, lines: dict[tuple, int] | None) -> None:
        self.name = name
        self.lines = lines
        self.document: Any = None
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}  # value and its number of nodes
        self.alias_nodes = 0

    def run(self, parser: Any) -> Any:
        """The one document of the stream."""
        documents = 0
        while True:
            event = parser.get_event()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self.scalar(event)
            elif kind is yaml.SequenceStartEvent or kind is yaml.MappingStartEvent:
                self.begin(event)
            elif kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
                self.end()
            elif kind is yaml.AliasEvent:
                self.alias(event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise self.fail(_line(event), "a second document (`---`) begins; keep one document per file")
            elif kind is yaml.StreamEndEvent:
                return self.document

    def fail(self, line: int, message: str) -> PacehpcError:
        return PacehpcError(f"{self.name}, line {line}: {message}")

    def scalar(self, event: yaml.ScalarEvent) -> None:
        """A word or a number."""
        text = event.value
        frame = self.stack[-1] if self.stack else None
        if event.implicit[0]:
            if text == "<<" and frame is not None and frame.is_map and frame.key is _NO_KEY:
                value: Any = _MERGE
            else:
                value = _plain(text)
        elif event.tag is None or event.tag in ("!", _TAG + "str"):
            value = text
        else:
            value = _plain(text)
            if type(value) not in _TAG_TYPES.get(event.tag, ()):
                raise self.fail(_line(event), _bad_tag(event.tag))
            if event.tag == _TAG + "float":
                value = float(value)
        if type(value) is int and len(text) > MAX_INTEGER_DIGITS:
            raise self.fail(_line(event), f"a number of {len(text)} digits; write it as a float")
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        if frame is not None and not frame.is_map and self.lines is None:  # the bulk of a potential file
            frame.value.append(value)
            frame.nodes += 1
        else:
            self.add(value, _line(event), 1)

    def begin(self, event: yaml.CollectionStartEvent) -> None:
        """A list or a mapping begins."""
        if len(self.stack) >= MAX_DEPTH:
            raise self.fail(_line(event), f"nested more than {MAX_DEPTH} levels deep; is a bracket left open?")
        frame = _Frame(type(event) is yaml.MappingStartEvent, event)
        if frame.tag not in (None, "!", _TAG + ("map" if frame.is_map else "seq")):
            raise self.fail(_line(event), _bad_tag(frame.tag))
        if frame.anchor is not None:
            self.anchors.pop(frame.anchor, None)
        self.stack.append(frame)

    def end(self) -> None:
        """The innermost list or mapping is complete."""
        frame = self.stack.pop()
        for source in frame.merges:
            for key, value in source.items():
                frame.value.setdefault(key, value)
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (frame.value, frame.nodes)
        self.add(frame.value, frame.line, frame.nodes)

    def alias(self, event: yaml.AliasEvent) -> None:
        """A copy of the value that stands at an anchor."""
        if any(frame.anchor == event.anchor for frame in self.stack):
            raise self.fail(_line(event), f"`*{event.anchor}` stands inside its own value; write the value out")
        if event.anchor not in self.anchors:
            raise self.fail(
                _line(event), f"`*{event.anchor}` refers to no earlier `&{event.anchor}`; quote text that starts with *"
            )
        value, nodes = self.anchors[event.anchor]
        self.alias_nodes += nodes
        if self.alias_nodes > MAX_ALIAS_NODES:
            raise self.fail(
                _line(event), f"aliases (`*name`) repeat more than {MAX_ALIAS_NODES} values; write the values out"
            )
        self.add(deepcopy(value), _line(event), nodes)

    def add(self, value: Any, line: int, nodes: int) -> None:
        """A complete value to where it stands."""
        if not self.stack:
            self.document = value
            return
        frame = self.stack[-1]
        frame.nodes += nodes
        if not frame.is_map:
            if self.lines is not None:
                self.lines[_path(self.stack)] = line
            frame.value.append(value)
        elif frame.key is _NO_KEY:
            self.add_key(frame, _tuple(value), line)
        else:
            if frame.key is _MERGE:
                sources = value if isinstance(value, list) else [value]
                if not all(isinstance(source, dict) for source in sources):
                    raise self.fail(line, "`<<` takes a mapping or a list of mappings")
                frame.merges.extend(sources)
            else:
                frame.value[frame.key] = value
            frame.key = _NO_KEY

    def add_key(self, frame: _Frame, key: Any, line: int) -> None:
        """The next key of the innermost mapping."""
        try:
            before = frame.key_lines.get(key)
        except TypeError:
            raise self.fail(line, "a mapping cannot be a key; give the key a simple name") from None
        if before is not None:
            raise self.fail(line, f"key `{_show(key)}` is given twice (before in line {before}); remove one of them")
        frame.key = key
        if key is not _MERGE:
            frame.key_lines[key] = line
            if self.lines is not None:
                self.lines[_path(self.stack)] = line


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1


def _plain(text: str) -> Any:
    """The value of an unquoted word: YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in _NUMBER_START:
        if _INTEGER.fullmatch(text):
            return int(text) if len(text) <= MAX_INTEGER_DIGITS else 0
        if _FLOAT.fullmatch(text):
            return float(text)
        if _HEXADECIMAL.fullmatch(text):
            return int(text, 16)
        if _OCTAL.fullmatch(text):
            return int(text[2:], 8)
    return text


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def _path(stack: list[_Frame]) -> tuple:
    """Path of the value that is about to be put into the innermost frame."""
    return tuple(frame.key if frame.is_map else len(frame.value) for frame in stack)


def _show(key: Any) -> str:
    return "<<" if key is _MERGE else str(list(key)) if isinstance(key, tuple) else str(key)


def _bad_tag(tag: str) -> str:
    shown = "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
    return f"tag `{shown}` cannot be used here; remove it"


def _syntax_message(error: yaml.YAMLError, name: str) -> str:
    """What the parser found wrong, in words of somebody who edits the file."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
    opened = getattr(error, "context_mark", None)
    since = f" {context} (from line {opened.line + 1}):" if context and opened and mark else ""
    if "token" in problem and ("'\\t'" in problem or "cannot start any token" in problem):
        advice = "use blanks instead of tabs, and quote text with special characters"
    elif "mapping values are not allowed" in problem:
        advice = "check the indentation and for a missing blank or comma; quote text that contains `: `"
    elif "special characters are not allowed" in problem or "control characters" in problem:
        advice = "remove the control character; is this a YAML file?"
    else:
        advice = "check brackets, quotes, colons and the indentation at this place"
    return f"{where}: not valid YAML:{since} {problem}; {advice}"
