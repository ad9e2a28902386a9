"""TIM-Net speech emotion recognition: from recordings to the paper's tables."""

__version__ = "0.1.0"
