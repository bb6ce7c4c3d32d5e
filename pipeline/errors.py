"""The error for users to fix, printed as one line without a traceback."""


class UserError(Exception):
    """Something the user can fix. The message says what, where, and what to do."""
