"""A day of an internet service, played in seconds: what arrives, what a fleet makes of it, what that costs.

Events, no processes, no clock but its own; the same seed gives the same day. docs/scaling.md says what it leaves out.
"""
