"""Hours of good and bad requests: does the service keep its memory? `python -m tests.soak`."""
