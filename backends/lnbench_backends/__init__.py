"""Backends that come with lnbench: one file per framework, NumPy, and the ctypes face of the native library."""
