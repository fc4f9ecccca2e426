"""Key and tag templates of decorated functions, compiled to functions when the decorator is applied."""

from __future__ import annotations

import difflib
import inspect
import linecache
import re
import string
from collections.abc import Callable, Sequence
from typing import Any, Final

from asynccache.errors import ConfigurationError, InvalidKey
from asynccache.keys import LONGEST, KeySpace, encode_key, encode_part, escape, shorten

__all__ = [
    "compile_around",
    "compile_call",
    "compile_template",
    "compile_templates",
    "default_template",
    "with_version",
]

_LITERAL: Final = re.compile(r"[A-Za-z0-9_.@+=:-]*").fullmatch
_BORDER: Final = re.compile(r"[^A-Za-z0-9_.@+=%'~(),-]").search
"""Finds what no encoded part holds."""
_RESULT: Final = "__asynccache_result"
_PART: Final = "__asynccache_part("
_FIELD: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*").fullmatch


def compile_template(
    template: str, signature: inspect.Signature, prefix: str = "", version: object = None
) -> Callable[..., str]:
    """Makes a function of a template: it takes the call's arguments and returns the key after the namespace.

    Args:
        template: text with fields that name parameters, or attributes of them: `"user:{user_id}"`, `"{self.tenant}"`.
        signature: of the function whose calls are keyed.
        prefix: put in front.
        version: a value, or a template of fields, that is put after the name: `user@3:...`; None for none.

    Returns:
        A function with the same parameters. Every field becomes one encoded part, so that data cannot form a separator.

    Raises:
        ConfigurationError: a field that is no parameter, has a format or an index; or text that a key cannot hold.
    """
    if not isinstance(template, str) or not template:
        raise ConfigurationError(f"key={template!r} must be a template such as 'user:{{user_id}}'")
    if version is not None:
        name, colon, rest = template.partition(":")
        pieces = [*_pieces(name, signature), "'@'", _version(version, signature), *_pieces(colon + rest, signature)]
    else:
        pieces = _pieces(template, signature)
    # The usual case without a call, since this is a good part of what a hit in memory costs.
    text = f"__asynccache_text := {' + '.join(pieces)}"
    expression = f"(__asynccache_text if len({text}) <= {2 * LONGEST} else __asynccache_short(__asynccache_text))"
    return _compile(f"{prefix!r} + {expression}" if prefix else expression, signature)


def compile_templates(templates: Sequence[str], signature: inspect.Signature) -> Callable[..., tuple[str, ...]]:
    """Makes one function of many templates of tags; the text of a tag is free, its fields are encoded like a key's."""
    tuples = [f"({' + '.join(_pieces(template, signature, free=True)) or repr('')})" for template in templates]
    return _compile(f"({''.join(f'{item}, ' for item in tuples)})", signature)


def _version(version: object, signature: inspect.Signature) -> str:
    """The expression of a version: one part, whatever fields it is made of."""
    if not isinstance(version, str) or "{" not in version:
        try:
            return repr(encode_part(version))
        except InvalidKey as error:
            raise ConfigurationError(f"version={version!r}: {error}") from error
    if any(literal.strip(":") for literal, *_ in string.Formatter().parse(version)):
        raise ConfigurationError(
            f"version={version!r}: between fields there may be ':' and no other text; the name is in the key already"
        )
    fields = [piece for piece in _pieces(version, signature) if piece.startswith(_PART)]
    # As the tuple of them would be encoded.
    if len(fields) == 1:
        return fields[0]
    return "'(' + " + " + ',' + ".join(fields) + " + ')'"


def with_version(key: str, space: KeySpace, version: object) -> str:
    """A key with a version after its name, as `compile_template` puts it there."""
    name, colon, rest = key.removeprefix(space.cells).partition(":")
    return f"{space.cells}{name}@{encode_part(version)}{colon}{rest}"


def compile_call(function: Callable[..., Any], signature: inspect.Signature, *, result: bool) -> Callable[..., Any]:
    """Makes a function with these parameters, and their defaults, that calls another with all of them.

    Args:
        function: takes the same parameters, and one more at its end with `result`.
        signature: the parameters.
        result: the function made takes a result first, which the other is given last.
    """
    marks: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    given = []
    for parameter in signature.parameters.values():
        named = f"{parameter.name}=" if parameter.kind is parameter.KEYWORD_ONLY else ""
        given.append(f"{marks.get(parameter.kind, '')}{named}{parameter.name}")
    if result:
        own = inspect.signature(function).parameters.values()
        last = [one for one in own if one.kind not in marks][-1]
        if last.kind is last.POSITIONAL_ONLY:
            given.append(_RESULT)
        else:
            given.insert(len(given) - any(text.startswith("**") for text in given), f"{last.name}={_RESULT}")
        first = inspect.Parameter(_RESULT, inspect.Parameter.POSITIONAL_ONLY)
        parameters = [first, *signature.parameters.values()]
        signature = inspect.Signature(parameters)
    return _compile(f"__asynccache_function({', '.join(given)})", signature, __asynccache_function=function)


def default_template(
    function: Callable[..., Any],
    signature: inspect.Signature,
    *,
    skip: Sequence[str] = (),
    prefix: str = "",
    version: object = None,
) -> Callable[..., str]:
    """The key of a function without a template: its module and name, and all its arguments, defaults filled in."""
    name = escape(f"{function.__module__}.{function.__qualname__}")
    names = []
    for parameter in signature.parameters.values():
        if parameter.name in skip:
            continue
        value = parameter.name
        if parameter.kind is parameter.VAR_KEYWORD:
            value = f"tuple(sorted({value}.items()))"
        names.append(value)
    # Also without arguments the key has a part of its own, and one argument is not the tuple of it.
    arguments = f"({', '.join(names)}{',' if len(names) == 1 else ''})"
    if version is None:
        return _compile(f"{prefix + name + ':'!r} + __asynccache_key({arguments})", signature)
    text = f"{prefix + name + '@'!r} + {_version(version, signature)} + ':' + __asynccache_key({arguments})"
    return _compile(text, signature)


def _pieces(template: str, signature: inspect.Signature, *, free: bool = False) -> list[str]:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"template {template!r}: {error}") from error
    pieces: list[str] = []
    between: str | None = None  # the text since the last field; None before the first
    for literal, field, spec, conversion in parsed:
        if between is not None:
            between += literal
            if field is not None and not _BORDER(between):
                raise ConfigurationError(
                    f"template {template!r}: between two fields there must be a ':', or other values could give the"
                    " same text"
                )
        if literal:
            if not free and not _LITERAL(literal):
                raise ConfigurationError(
                    f"template {template!r}: {literal!r} may only hold letters, digits and _ . @ + = : - ; data belongs"
                    " in fields"
                )
            pieces.append(repr(literal))
        if field is None:
            continue
        between = ""
        if spec or conversion or not _FIELD(field):
            raise ConfigurationError(
                f"template {template!r}: {{{field}}} must be a parameter or an attribute of one, and no more"
            )
        name = field.partition(".")[0]
        if name not in signature.parameters:
            near = difflib.get_close_matches(name, signature.parameters, 1)
            hint = f"did you mean {{{near[0]}}}?" if near else f"there are: {', '.join(signature.parameters) or 'none'}"
            raise ConfigurationError(f"template {template!r}: {{{field}}} names no parameter; {hint}")
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD and field == name:
            field = f"tuple(sorted({name}.items()))"  # noqa: PLW2901 - the same field, in an order
        pieces.append(f"{_PART}{field})")
    return pieces


def compile_around(
    build: Callable[..., str], signature: inspect.Signature, source: str, name: str, **names: Any
) -> Callable[..., Any]:
    """Makes a function with these parameters of a text: so a call needs no frame to make its key, and no tuple and dict
    of its arguments.

    Args:
        build: makes the key of a call; from this module.
        signature: the parameters.
        source: of `def wrapper{head}:`. In it `{key}` is the key, `{args}` and `{kwargs}` are all arguments as a tuple
            and a dict, and names that begin with `$` are its own: no parameter can be called the same.
        name: what tracebacks call the text.
        names: what the text uses, without the `$`.
    """
    scope, head = _scope(signature)
    args, kwargs = [], []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            kwargs.append(f"**{parameter.name}")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            kwargs.append(f"{parameter.name!r}: {parameter.name}")
        else:
            args.append(f"{'*' if parameter.kind is parameter.VAR_POSITIONAL else ''}{parameter.name}, ")
    scope.update({f"__asynccache_{key}": value for key, value in names.items()})
    code = source.replace("$", "__asynccache_")
    for field, text in (
        ("{head}", head),
        ("{key}", build.__dict__["expression"]),
        ("{args}", f"({''.join(args)})"),
        ("{kwargs}", f"{{{', '.join(kwargs)}}}"),
    ):
        code = code.replace(field, text)
    exec(compile(code, name, "exec"), scope)  # noqa: S102 - only names and checked text are in it
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)  # for tracebacks
    made: Callable[..., Any] = scope["wrapper"]
    return made


def _compile(expression: str, signature: inspect.Signature, **names: Any) -> Callable[..., Any]:
    """A function with these parameters that returns this expression of them, which it has as an attribute, too."""
    scope, head = _scope(signature)
    scope.update(names)
    code = f"def build{head}:\n    return {expression}\n"
    exec(compile(code, "<asynccache template>", "exec"), scope)  # noqa: S102 - only names and checked text are in it
    build: Callable[..., Any] = scope["build"]
    build.__dict__["expression"] = expression
    return build


def _scope(signature: inspect.Signature) -> tuple[dict[str, Any], str]:
    """What expressions of keys use, defaults among it; and the parameters as text."""
    scope: dict[str, Any] = {
        "__asynccache_part": encode_part,
        "__asynccache_key": encode_key,
        "__asynccache_short": _short,
    }
    parameters = []
    for at, parameter in enumerate(signature.parameters.values()):
        default = parameter.default
        if default is not parameter.empty:
            scope[f"__asynccache_default{at}"] = default
            parameter = parameter.replace(default=_Name(f"__asynccache_default{at}"))  # noqa: PLW2901
        parameters.append(parameter.replace(annotation=parameter.empty))
    return scope, str(inspect.Signature(parameters))


class _Name:
    """Stands for a default in a signature's text."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


def _short(suffix: str) -> str:
    name, _, rest = suffix.partition(":")
    return f"{name}:{shorten(rest)}" if rest and len(name) <= LONGEST else shorten(suffix)
