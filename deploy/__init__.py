"""Ways to run inferq."""
