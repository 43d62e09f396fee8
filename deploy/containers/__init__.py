"""Builds the images and runs docker-compose.yml with podman: ``python -m deploy.containers images`` and ``compose``."""
