"""Loggers beside TensorBoard: Weights & Biases and MLflow, which a config names in `trainer_options.loggers`.

`RunLogger` in `run_logger` is all that a logger is; `background` runs several of them apart from the run, so that none
can delay or end it; `factory` knows their names. `weights_and_biases` and `mlflow_tracking` are the loggers, each with
the only import of its package. What is logged is decided in `summaries` and `deeplab2_kmax.training.run`.
"""
