"""So much of the signal, so much of the noise; the levels (N, 1, 1, 1) reach every number of their picture."""


def add_noise(z, noise, signal_level, noise_level):
    return signal_level * z + noise_level * noise
