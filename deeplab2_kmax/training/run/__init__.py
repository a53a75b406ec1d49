"""One run of an experiment, from its command to its last step.

Start with `start`: it checks the run, takes its folder and devices, builds it and does what the mode asks for. `run`
builds and holds all parts of a run; `modes` says what each mode does with them; `run_checks` refuses what cannot work
before anything is built. One training step is in `deeplab2_kmax.training.step`.
"""
