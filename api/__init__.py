"""Whatever speaks HTTP as a server."""
