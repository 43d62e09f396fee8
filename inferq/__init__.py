"""What the API and the workers must agree on: settings, job and run model, Redis keys and scripts.

A module belongs here only when both sides need it. No Flask, no vLLM, no torch (enforced by import-linter).
"""

__version__ = "0.1.0"
