"""Help in one style: values are words in capitals, such as FOLDER or N, and flags have none."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption

TYPES = {
    **dict.fromkeys(("path", "list[path]"), "PATH"),
    **dict.fromkeys(("str", "list[str]"), "TEXT"),
    **dict.fromkeys(("int", "int range"), "N"),
    "bool": "",
}  # typer's name of a type -> the word for its value; choices stay
WORDS = {
    **dict.fromkeys(("--root", "--split", "--release"), "FOLDER"),
    **dict.fromkeys(("--params", "--order", "--key", "--sign", "--json", "--page"), "FILE"),
    **dict.fromkeys(("--interactions", "--items"), "FILE"),
    **dict.fromkeys(("--encoder", "--features", "--category", "--codes"), "NAME"),
    **dict.fromkeys(("--id", "--image"), "COLUMN"),
    "--text": "COLUMNS",
    "--column": "ROLE=NAME",
    "--user": "ID",
    "--host": "ADDRESS",
}  # option -> the word for its value, where its type says less


class Argument(TyperArgument):
    """An argument without typer's braces and name of its type."""

    def display_type_rich(self, ctx: Any) -> None:
        """Return nothing, in place of its type."""

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        name = f"{self.metavar}..." if self.nargs != 1 else str(self.metavar)
        return [name if self.required else f"[{name}]"]


class Command(TyperCommand):
    """A command whose help is in this style."""

    def get_params(self, ctx: Any) -> list[Any]:
        return named(super().get_params(ctx), ctx)


def named(params: list[Any], ctx: Any) -> list[Any]:
    for param in params:
        if isinstance(param, TyperArgument):
            param.__class__ = Argument
            param.metavar = param.metavar or str(param.name).upper()
        elif isinstance(param, TyperOption) and param.metavar is None:
            kind = param.display_type(ctx).strip("<>")
            param.metavar = WORDS.get(param.opts[0], TYPES.get(kind, kind))
    return params
