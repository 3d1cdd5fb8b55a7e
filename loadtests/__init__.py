"""How fast the service answers under load: Locust users, and a check of their report against thresholds."""
