"""Runs the tests under a build tool that expects a program; the arguments are pytest's."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
