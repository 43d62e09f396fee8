"""gunicorn's entry: ``gunicorn -c python:api.gunicorn_conf api.wsgi:app``."""

from api.app import create_app
from inferq.logs import configure_logging
from inferq.settings import load_settings

settings = load_settings()
configure_logging(settings.log_format)
app = create_app(settings)
