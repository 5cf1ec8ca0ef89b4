"""What every trained method shares: configuration, data, devices, checkpoints and the loop."""
