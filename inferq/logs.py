"""Logs: JSON lines in containers, coloured lines at a desk. Never a prompt, an answer or a key. See docs/logs.md.

Whoever speaks through Python's ``logging`` (Celery, kombu, gunicorn, vLLM) is heard in the same form.
"""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from inferq.log_lines import JsonLines
from inferq.settings import Settings

#: Loggers that say at INFO what inferq says better: each bell received and answered.
_QUIET: Final = ("celery.app.trace", "celery.worker.strategy")


def configure_logging(settings: Settings, *processors: Processor) -> None:
    """Send all logs of this process to standard error, as ``LOG_FORMAT`` and ``LOG_LEVEL`` say, with UTC times.

    ``processors`` add to what structlog's lines say.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    lines: list[Processor]
    logger: structlog.BytesLoggerFactory | structlog.PrintLoggerFactory
    if settings.log_format == "json":
        lines, logger = [structlog.processors.format_exc_info, _json], structlog.BytesLoggerFactory(sys.stderr.buffer)
    else:
        lines = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _renderer(),
        ]
        logger = structlog.PrintLoggerFactory(sys.stderr)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *processors, *lines],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=logger,
        cache_logger_on_first_use=True,
    )
    _hear_others(level, _console() if settings.log_format == "console" else JsonLines())


def _json(_: WrappedLogger, level: str, said: EventDict) -> bytes:
    """Return a line. One step instead of structlog's three: each request writes one, and waits for it."""
    said = {"timestamp": datetime.now(UTC), "level": level, "event": said.pop("event"), **said}
    return orjson.dumps(said, str, orjson.OPT_UTC_Z)


def _renderer() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _console() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processor=_renderer(),
    )


def _hear_others(level: int, formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def adding(**fields: Callable[[], object]) -> Processor:
    """Return a processor that adds to each line what each of ``fields`` returns, unless that is None or said."""

    def add(_: WrappedLogger, __: str, said: EventDict) -> EventDict:
        for name, ask in fields.items():
            if name not in said and (value := ask()) is not None:
                said[name] = value
        return said

    return add
