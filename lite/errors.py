"""The errors that a person is meant to read.

Contract: a message is one sentence that says what is wrong, where, and what to do next. They are
raised where the problem is seen and caught once, by the command (`lite.cli`).
"""


class LiteError(Exception):
    """Something of ours failed: the command ends with exit code 1."""

    exit_code = 1


class BadInput(LiteError):
    """What the person gave cannot be used: the command ends with exit code 2."""

    exit_code = 2


class TooLong(BadInput):
    """The prompt does not fit into the model's context."""


def first_line(error: BaseException) -> str:
    """What an exception of another library says, short enough for one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
