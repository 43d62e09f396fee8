"""Every error inferq raises on purpose. The class docstring is the message unless a better one is given."""


class InferqError(Exception):
    """Something in inferq went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class ConfigurationError(InferqError):
    """A setting is missing or wrong; the process must not start."""


class BadTenant(InferqError):
    """A tenant's name is 1 to 64 letters, digits, dots, underscores and dashes."""


class StoreUnavailable(InferqError):
    """Redis does not answer, or refuses to write. It may have done what it was asked, and only its answer was lost."""


class EngineError(InferqError):
    """The engine could not finish a run."""


class RequestFailed(EngineError):
    """The engine refused or failed this one request; the engine itself lives on. Recoverable."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class EngineDead(EngineError):
    """The engine has died; the worker must hand its runs back and end. Unrecoverable."""


class EngineGone(EngineDead):
    """The engine had died before it saw this run, which is therefore not suspected of anything."""


class RunAborted(EngineError):
    """The run was told to stop, and the engine has freed it."""
