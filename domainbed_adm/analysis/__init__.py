"""What a finished run's model is like: curvature and sharpness of its loss, the loss around it, its difficulties."""
