"""Explainable inference for medical images: the serving side (no torch, no training code)."""
