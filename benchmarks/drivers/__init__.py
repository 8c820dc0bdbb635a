"""Drivers: each client in a process of its own, behind one small interface.

``python -m benchmarks.drivers JOB`` takes a job as JSON, does it and prints one line of JSON.
A driver imports the client it drives and no other, so that memory and imports are its own.
"""
