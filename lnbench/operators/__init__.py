"""The operators: `schema` says what one is, `registry` finds them, every other file defines one."""
