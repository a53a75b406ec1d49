"""What a run says while it trains: lines on the terminal, TensorBoard's curves and pictures.

Start with `progress`. `step_clock` measures the times that the others report.
"""
