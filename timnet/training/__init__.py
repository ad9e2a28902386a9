"""Train TIM-Net: the network, the stack of networks, runs in processes with checkpoints."""
