"""Random cases: `space` says which there are, `hunt` looks for one that a backend fails and makes it small.

The self-test draws from the same space, so that what is never accused there is what fuzzing tries.
"""
