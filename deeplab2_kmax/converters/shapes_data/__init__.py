"""The drawing of the data set `shapes`: scenes of colored shapes on textured ground, made from a seed.

Start with `scenes`, which draws a scene from the things in `outlines` and the stuff in `textures`.

Elsewhere: `deeplab2_kmax.converters.shapes` writes the scenes as records.
"""
