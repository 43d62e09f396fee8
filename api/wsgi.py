"""gunicorn's entry: ``gunicorn -c api/gunicorn_conf.py api.wsgi:app``."""

from flask import g, has_request_context

from api.app import create_app
from api.bootstrap import store_bootstrap_key
from api.services import services
from inferq.logs import adding, configure_logging
from inferq.settings import load_settings

settings = load_settings()
configure_logging(settings, adding(request_id=lambda: g.get("request_id") if has_request_context() else None))
app = create_app(settings)
store_bootstrap_key(services(app).keys, settings)
