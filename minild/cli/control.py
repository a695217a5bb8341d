"""--controlnet and --control: a picture that a drawing follows."""

from minild.cli.pictures import fitting, read_image
from minild.errors import UserError


def require_control(arguments):
    """UserError where one of the options of a ControlNet needs another."""
    given = {"--control": arguments.control, "--outline": arguments.outline, "--control-scale": arguments.control_scale}
    alone = [option for option, value in given.items() if value is not None and value is not False]
    if arguments.controlnet and not arguments.control:
        raise UserError("--controlnet needs --control, the picture that it looks at")
    if alone and not arguments.controlnet:
        raise UserError(f"{alone[0]} needs --controlnet, the folder of a ControlNet")


def control_of(arguments, pipeline, size):
    """The arguments of Pipeline.text_to_image that say what is followed; {} for nothing.

    size: (height, width) in pixels of what is drawn; None for that which the model was trained on.
    """
    if not arguments.controlnet:
        return {}
    from minild.data.outlines import outlines
    from minild.pipelines.control import open_controlnet

    controlnet = open_controlnet(pipeline, arguments.controlnet)
    picture, _ = read_image(arguments.control, fitting(pipeline, size))
    if arguments.outline:
        picture = outlines(picture[None])[0]
    scale = 1.0 if arguments.control_scale is None else arguments.control_scale
    return {"controlnet": controlnet, "control": picture, "control_scale": scale}


def told_of_control(arguments):
    """What a PNG says of it."""
    if not arguments.controlnet:
        return {}
    scale = 1.0 if arguments.control_scale is None else arguments.control_scale
    told = {"controlnet": arguments.controlnet.name, "control": arguments.control.name, "control_scale": scale}
    return told | ({"outline": "yes"} if arguments.outline else {})
