"""The error that is the user's to mend."""


class UserError(Exception):
    """Bad input from a user: its message is one clear line that says what to do.

    The command prints the message and ends with exit code 2.
    """
