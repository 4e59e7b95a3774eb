"""What the user is told when something ends badly."""

EXIT_OUT_OF_MEMORY = 3


class UserError(Exception):
    """A mistake in the input or the settings: one sentence that says where, what, and what to do."""
