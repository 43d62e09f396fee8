"""Log records of libraries as JSON lines, in the form of inferq's own.

Named by gunicorn's and vLLM's configurations, in processes that load little: nothing here needs structlog, which
imports ssl, and gunicorn's parent must not have (api/gunicorn_conf.py).
"""

import logging
from datetime import UTC, datetime

import orjson


class JsonLines(logging.Formatter):
    """One JSON object for each record: timestamp, level, event, logger, process where vLLM names it, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        process = getattr(record, "vllm_process_name", None)
        if process:
            said["process"] = process
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(said, str, orjson.OPT_UTC_Z).decode()
