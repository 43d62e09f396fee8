"""The command line ``inferq``: part of the extra ``cli``.

What is asked for goes to stdout, what is said about it to stderr, so that a pipe gets the one and a person sees both.
"""
