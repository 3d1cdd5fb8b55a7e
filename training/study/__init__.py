"""Reader studies: from exported readings to tests, figures and a report; power before one; simulated ones."""
