"""The embedded `shapes` data set: scenes of coloured shapes on textured ground, drawn from a seed.

Start with `scenes`. The command that writes them as records is `deeplab2_kmax.converters.shapes`.
"""
