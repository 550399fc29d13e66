"""Words the errors of malformed flags like all other errors: what is wrong with which option, and where to read on."""

from __future__ import annotations

from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError

__all__ = ["usage_error"]


def usage_error(error: CycloptsError) -> str:
    """Return the text of an error of the library that reads the arguments."""
    command = " ".join(("plane", *(error.command_chain or ())))
    return f"{_problem(error)} See: {command} --help"


def _problem(error: CycloptsError) -> str:
    unused = error.unused_tokens or []
    if isinstance(error, UnusedCliTokensError):
        return f"not understood: {' '.join(unused)}."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        # The library's text is the same for an option without its value and for one that is not given at all.
        given = set(error.argument.names) & set(error.root_input_tokens or ())
        if given:
            return f"{given.pop()} needs a value."
        sources = " or ".join((error.argument.name, *(error.argument.parameter.env_var or ())))
        return f"{sources} is required{f', and {unused[0]} is not understood' if unused else ''}."
    return str(error)
