"""A series as one thing: its slices in geometric order, which model answers it, and its pooled finding."""
