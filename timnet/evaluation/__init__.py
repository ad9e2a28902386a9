"""From predictions to scores: metrics, intervals, calibration, comparison, parity."""
