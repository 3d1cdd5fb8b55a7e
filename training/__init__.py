"""Offline training and evaluation of the models, and the study's statistics."""
