"""Manifest -> `Dataset` -> `LightningDataModule`.

Nothing is imported here: training and evaluation name the modules they need.
"""
