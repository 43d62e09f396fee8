"""Users of Redis for each process of inferq, each with no more than its process does: ``python -m deploy.acl``."""
