"""What people run around the experiments: plan, bench, doctor."""
