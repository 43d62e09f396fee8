"""Whatever runs because a job runs."""
