"""What pyproject.toml cannot say: a wheel carries data/ inside the package, as minild/_data."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["minild", "minild.*"]), "minild._data"],
    package_dir={"minild._data": "data"},
    package_data={"minild._data": ["**/*"]},
    exclude_package_data={"minild._data": ["**/__pycache__/*"]},
)
