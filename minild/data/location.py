"""Where the library's own data lies."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(*parts):
    """The path of one of the library's data files, e.g. data_path("emoji", "metadata.jsonl").

    In a checkout (an editable install) data/ stands beside the package; a wheel carries it inside, as minild/_data.
    """
    inside, beside = _PACKAGE / "_data", _PACKAGE.parent / "data"
    return (inside if inside.is_dir() else beside).joinpath(*parts)
