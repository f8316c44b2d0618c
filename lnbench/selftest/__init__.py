"""The proof of the verifier: planted bugs that must all be found, right kernels that must never be accused."""
