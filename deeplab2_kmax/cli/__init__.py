"""The console command `deeplab2-kmax`: one file for each sub-command that does more than call the library.

Start reading at `main`, which declares all sub-commands. `output_files` names and writes the results of those that take
picture files. What `benchmark inference` does is a folder, `inference_benchmark/`. Nothing outside this folder imports
it. Programs with DeepLab2's flags live elsewhere: in `trainer/` and `evaluation/` of a checkout, and as
`python -m deeplab2_kmax.converters.<name>`.
"""
