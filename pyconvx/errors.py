"""The exceptions of pyconvx. Each message says what was got, what was expected and what to do."""


class InvalidCall(ValueError, RuntimeError):
    """An argument that no backend could make sense of: a wrong rank, size, dtype, device or option.

    It is a ``ValueError`` by nature and a ``RuntimeError`` by descent, because code written for torch catches the
    ``RuntimeError`` that torch raises in the same place.
    """


class BackendRefusal(RuntimeError):
    """A valid call that the backend asked for, or every backend there is, cannot run; the message says why."""
