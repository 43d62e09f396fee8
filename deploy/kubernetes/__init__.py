"""Kubernetes: kustomize bases, components and overlays, and what is made for them from the rest of the repository."""
