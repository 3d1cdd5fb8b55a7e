"""Explanations that take long, as jobs: stored, worked off, cancelled and resumed."""
