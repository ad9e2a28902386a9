"""Train TIM-Net: its definition, the fast network, recipes, runs in processes with checkpoints."""
