"""Kill everything, and count what is lost: ``make chaos``."""
