"""The rules of all detectors: one module for each family of data."""
