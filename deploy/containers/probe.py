"""What an image's health check runs: ``python probe.py PORT PATH`` succeeds if loopback answers 200 there.

Of the standard library alone, and by itself: it starts every few seconds.
"""

import http.client
import sys

#: Seconds; below the health check's own timeout.
TIMEOUT_S = 4


def answers(port: int, path: str) -> bool:
    """Return whether a GET of ``path`` is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not answers(int(sys.argv[1]), sys.argv[2]))
