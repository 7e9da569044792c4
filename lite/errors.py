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
