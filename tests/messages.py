"""What users are told, for the tests."""

import pytest

from jaxstyle.errors import UserError


def user_error(function, *args, **options) -> str:
    """The message of the UserError that a call ends in: always one line."""
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message
