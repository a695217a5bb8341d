"""Makes the pages anew."""

from importlib import import_module

from moving import FOLDER, PAGES

FOLDER.mkdir(exist_ok=True)
for name in PAGES:
    path = FOLDER / f"{name}.html"
    path.write_bytes(import_module(f"moving.{name}").page().html(name).encode("utf-8"))
    print(f"{path.relative_to(FOLDER.parent)}: {path.stat().st_size / 1000:.0f} kB")
