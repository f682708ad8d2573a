"""Tells the reference how values of attrs are made: griffe reads the source, where no ``__init__`` stands."""

from __future__ import annotations

import inspect
from typing import Any

import attrs
import griffe

DECORATORS = {"attrs.define", "attrs.frozen"}


class Signatures(griffe.Extension):
    """Gives each class of attrs the ``__init__`` that it has when the program runs."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called by griffe for each class, once all is read."""
        # Others are not imported: some need packages that the reference does not.
        if DECORATORS & {decorator.callable_path for decorator in cls.decorators} and "__init__" not in cls.members:
            try:
                made = griffe.dynamic_import(cls.path)
            except ImportError:  # an extra that the reference says nothing of
                return
            signature = inspect.signature(made.__init__)
            defaults = {field.alias: field.default for field in attrs.fields(made) if field.alias}
            parameters = [
                griffe.Parameter(
                    name,
                    annotation=_annotation(cls, parameter.annotation),
                    kind=griffe.ParameterKind[parameter.kind.name.lower()],
                    default=_default(defaults.get(name, attrs.NOTHING)),
                )
                for name, parameter in signature.parameters.items()
            ]
            cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters)))


def _annotation(cls: griffe.Class, annotation: Any) -> str | griffe.Expr | None:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return None if annotation is inspect.Parameter.empty else griffe.parse_docstring_annotation(text, _docstring(cls))


def _docstring(cls: griffe.Class) -> griffe.Docstring:
    return cls.docstring or griffe.Docstring("", parent=cls)


def _default(default: Any) -> str | None:
    if default is attrs.NOTHING:
        return None
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # typed as a function, and a class
        return {list: "[]", dict: "{}"}.get(default.factory, "...")
    return repr(default)
