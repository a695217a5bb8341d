"""All that changes in a training, but the random generator, as arrays under names: what a resume goes on from."""

from minild.backend import device_of, to_device, to_host


def training_state(optimizer, ema, tracker=None):
    """{name: host array}: the weights, and what the optimiser, the moving average and a CodebookTracker keep."""
    parts = {"optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
    if tracker:
        parts["tracker"] = tracker.state_dict()
    state = {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    return {"weights": to_host(optimizer.weights), **state}


def load_training_state(optimizer, ema, state, tracker=None):
    """Go on from such a state. ValueError names every array that is missing or misshapen; all is then as it was."""
    own = training_state(optimizer, ema, tracker)
    faults = [name for name in own if name not in state or state[name].shape != own[name].shape]
    if faults:
        raise ValueError(f"the state is not one of this model: {', '.join(faults)}")
    weights = optimizer.weights
    weights[:] = to_device(state["weights"], device_of(weights))
    for part, target in (("optimizer.", optimizer), ("ema.", ema), *([("tracker.", tracker)] if tracker else [])):
        target.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})
