"""AdamW's step and the moving average of the weights on the GPU, a kernel each."""

from minild.engine.cuda import elementwise


def adamw(gradient, m, v, weights, decays, *, beta1, beta2, rate, eps, decay):
    """Update m, v and weights in place, as `minild.training.optimizer.AdamW.step` has it. All are (size,)."""
    elementwise("optimizer", "adamw", weights.size, gradient, m, v, weights, decays,
                1 - beta1, beta2, 1 - beta2, rate, eps, decay)


def move_average(average, weights, rate):
    """average ← average + rate · (weights - average), in place."""
    elementwise("optimizer", "move_average", average.size, average, weights, rate)
