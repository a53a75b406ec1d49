"""Config messages: Python modules that `protos/generate.py` makes of the *.proto files; not edited by hand."""
