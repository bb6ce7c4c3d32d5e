"""The one error that is the user's to fix: shown as one line, without a traceback."""


class UserError(Exception):
    """Something the user can mend. The message says what, where, and what to do."""
