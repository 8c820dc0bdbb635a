"""Benchmarks: SMTP clients for Python side by side, in one run, against one server.

``python -m benchmarks`` from the checkout's root writes a report. How it is kept honest is in
the README of this folder; what is measured is the table in `works`, what is wished for the one
in `goals`.
"""
