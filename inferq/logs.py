"""Structured logs: JSON lines in containers, coloured lines at a desk. Never a prompt, an answer or a key."""

import logging
import sys

import structlog


def configure_logging(form: str, level: int = logging.INFO) -> None:
    """Send structlog to standard error, as ``json`` or ``console`` lines with UTC times."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
