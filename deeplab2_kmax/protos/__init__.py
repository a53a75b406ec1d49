"""Config messages: Python modules and type stubs that `protos/generate.py` makes of the .proto files in `protos/`.

Nothing here is edited by hand. Start with `protos/config.proto` of the checkout, whose `ExperimentOptions` is a whole
config; the .proto files hold the documentation and the default of each field. Configs are read and checked in
`deeplab2_kmax.config`.
"""
