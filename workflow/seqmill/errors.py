"""What the user is told when something ends badly."""

EXIT_OUT_OF_MEMORY = 3


def first_line(error: BaseException) -> str:
    """An exception's message in one line, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class UserError(Exception):
    """A mistake in the input or the settings: one sentence that says where, what, and what to do."""
