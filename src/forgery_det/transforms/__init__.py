"""Pixels in, pixels out: preprocessing, training augmentation and (later) evaluation perturbations."""
