"""Trained models: build, load, predict, out of domain, model card, export."""
