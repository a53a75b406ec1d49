"""What a run reports while it trains: lines on the terminal, TensorBoard's curves and pictures.

Start with `progress`. `summaries` writes for TensorBoard; `step_clock` measures the times that both report.
"""
