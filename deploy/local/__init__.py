"""All of inferq on one machine, in the foreground: ``python -m deploy.local up`` and ``demo``."""
