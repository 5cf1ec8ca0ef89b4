"""The error that is the user's to mend, and how files and other errors are told in one line."""

import os


class UserError(Exception):
    """Bad input from a user: its message is one clear line that says what to do.

    The command prints the message and ends with exit code 2.
    """


def printable(path: str | os.PathLike[str]) -> str:
    """A path for an error message: one line, whatever is in it."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def reason_of(error: BaseException) -> str:
    """What an exception says, in one line, without the path, which the message has already."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
