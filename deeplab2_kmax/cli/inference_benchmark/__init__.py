"""What `deeplab2-kmax benchmark inference` does: measures how fast models turn picture files into panoptic maps.

Start reading at `run`, which goes through sizes and batches. `models` opens what is measured, `measuring` times its
stages in turns, `cold_start` starts it in a process of its own, `machine` says what it runs on, and `report` prints
tables and writes CSV and plot. A format of exports that is added needs a `BenchmarkedModel` from `Source.open`;
whatever takes a picture, as `Predictor` does, becomes one by `BenchmarkedModel.of_predictor`.

Nothing is imported here: the process of a cold start must not wait for what only the others need.
"""
