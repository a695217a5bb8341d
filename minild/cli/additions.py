"""--lora and --embedding: what a pipeline has learnt since it was trained."""

from minild.cli.terminal import note, without_warnings


def learn(arguments, pipeline):
    """Add what the options name to a pipeline; a note says which words are new. UserError for what does not fit it."""
    for file, scale in getattr(arguments, "lora", []):
        pipeline.load_lora(file, scale, str(file))
    with without_warnings():
        pipeline.loras.merge()
    words = [(file, pipeline.load_textual_inversion(file)) for file in getattr(arguments, "embedding", [])]
    for file, word in words:
        note(f"{file}: the word {word}")


def told_of_additions(arguments):
    """What a PNG says of them."""
    told = {}
    if loras := getattr(arguments, "lora", []):
        told["lora"] = ", ".join(f"{file.name}:{scale:g}" for file, scale in loras)
    if embeddings := getattr(arguments, "embedding", []):
        told["embedding"] = ", ".join(file.name for file in embeddings)
    return told
