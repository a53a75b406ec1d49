"""One run of an experiment, from its command to its last step.

Start with `start`: it checks the run, takes its folder, builds it and does what the mode asks for. `run` builds and
holds all parts of a run; `modes` says what each mode does with them; `run_checks` and `run_folder` refuse what cannot
work before anything is built; `stop_signals` and `storage_errors` say how a run ends early. One training step is in
`deeplab2_kmax.training.step`.
"""
