"""The console command `deeplab2-kmax`: one file for each sub-command that does more than call the library.

Start with `main`, which declares all sub-commands. Nothing outside this folder imports it; programs with DeepLab2's
flags are `trainer/` and `evaluation/` of a checkout and `python -m deeplab2_kmax.converters.<name>`.
"""
